"""Settings that belong to one source only: the value of `data.options` in the recipe."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from edgemill.errors import RecipeError
from edgemill.recipe import Data, Section


class NoOptions(Section):
    """Sources that have no settings: idx, npy, sklearn:NAME."""


class NpzOptions(Section):
    """Names of the arrays in an .npz file; without them x_train/y_train/x_test/y_test, then x/y."""

    x: str | None = Field(None, description="array of the samples")
    y: str | None = Field(None, description="array of the labels")
    x_test: str | None = Field(None, description="array of the test samples, where the file has its own test set")
    y_test: str | None = Field(None, description="array of the test labels")


class ImageFolderOptions(Section):
    """How images become arrays."""

    image_size: tuple[PositiveInt, PositiveInt] | None = Field(
        None, description="[height, width] to which every image is scaled; without it all must have one size"
    )
    channels: Literal[1, 3] = Field(3, description="1 = grey, 3 = RGB")


class ParquetOptions(Section):
    """Which columns are what."""

    label_column: str | None = Field(None, description="column of the labels; may be left out for task unlabelled")
    feature_columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="columns of the features, in order; without it all but the label column"
    )
    shape: tuple[PositiveInt, ...] | None = Field(
        None, min_length=1, description="shape of one sample; without it (number of features,)"
    )


OPTIONS: dict[str, type[Section]] = {
    "idx": NoOptions,
    "npz": NpzOptions,
    "npy": NoOptions,
    "image_folder": ImageFolderOptions,
    "parquet": ParquetOptions,
    "sklearn": NoOptions,
}
"""Options by source; those of `python:module:function` are the keyword arguments of the function."""


def parse_options(data: Data, model: type[Section]) -> Any:
    """The options of a recipe as the given model.

    Raises:
        RecipeError: unknown key or wrong type, with the path of the key.
    """
    try:
        return model.model_validate(data.options)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            key = ".".join(["data", "options", *(str(part) for part in item["loc"])])
            if item["type"] == "extra_forbidden":
                known = ", ".join(sorted(model.model_fields)) or "none"
                problems.append(f"{key}: unknown key; known for source {data.source}: {known}")
            else:
                problems.append(f"{key}: {item['msg']} (found {item['input']!r})")
        raise RecipeError(
            "The options of the data source are wrong.",
            where="data.options",
            got="; ".join(problems),
            remedy="docs/recipe.md lists the options of every source",
        ) from error


def check_options(data: Data) -> str:
    """Refuse wrong options before anything is read; gives the part of the source before the colon.

    Raises:
        RecipeError: see `parse_options`.
    """
    kind = data.source.partition(":")[0]
    if kind != "python":
        parse_options(data, OPTIONS[kind])
    return kind
