"""The recipe: everything a run needs to know, as one validated value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from edgemill.errors import RecipeError
from edgemill.recipe.gates import Budget, Gates
from edgemill.recipe.inputs import Checkpoint, Data, Task
from edgemill.recipe.measuring import Benchmark
from edgemill.recipe.quantizing import Scheme
from edgemill.recipe.searching import Search
from edgemill.recipe.section import Section
from edgemill.recipe.stages import Stages
from edgemill.recipe.text import expand, override, plain, read_yaml, refusal
from edgemill.targets.catalog import is_file_name

DEFAULT_TARGETS = ("x86-64-vnni", "raspberry-pi-5", "android-arm64")


_TASKS_OF_GATES = {
    "top_k": (Task.CLASSIFICATION,),
    "macro_f1": (Task.CLASSIFICATION,),
    "classes": (Task.CLASSIFICATION,),
    "slices": (Task.CLASSIFICATION,),
    "calibration_error": (Task.CLASSIFICATION,),
    "rmse": (Task.REGRESSION,),
    "r2": (Task.REGRESSION,),
}


class Recipe(Section):
    """What to compress, with which data, how far, and for which targets."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the model: lower case, digits, dashes")
    checkpoint: Checkpoint = Field(description="the trained model to start from")
    data: Data = Field(description="where the samples come from")
    task: Task = Field(Task.CLASSIFICATION, description="what the model answers, and so how it is scored")
    budget: Budget = Field(Budget(), description="what compression may cost")
    gates: Gates = Field(Gates(), description="checks beside the budget")
    stages: Stages = Field(Stages(), description="the compressing stages")
    search: Search | None = Field(None, description="try many chains instead of one; left out: the stages as given")
    targets: tuple[str, ...] = Field(
        DEFAULT_TARGETS, min_length=1, description="names from `edgemill targets`, or YAML files of your own"
    )
    benchmark: Benchmark = Field(Benchmark(), description="how latency is measured")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of everything random but the splits")

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets: a target is listed twice")
        if self.task is not Task.REGRESSION and self.budget.max_accuracy_drop >= 1:
            raise ValueError(
                f"budget.max_accuracy_drop: must be below 1 for task {self.task}, 0.01 is one point of accuracy "
                f"(found {self.budget.max_accuracy_drop})"
            )
        self._gates_fit_the_task()
        if self.task in (Task.UNLABELLED, Task.ANOMALY):
            self._needs_no_labels()
        return self

    def _gates_fit_the_task(self) -> None:
        for name in self.gates.declared:
            if name in _TASKS_OF_GATES and self.task not in _TASKS_OF_GATES[name]:
                fitting = " or ".join(_TASKS_OF_GATES[name])
                raise ValueError(f"gates.{name}: is for task {fitting} (task is {self.task})")

    def _needs_no_labels(self) -> None:
        why = f"for task {self.task}, there are no labels to learn from"
        stages = self.stages
        qat = stages.quantize.qat if Scheme.INT8_QAT in stages.quantize.schemes else None
        tuned = (
            ("channels", stages.channels),
            ("prune", stages.prune),
            ("cluster", stages.cluster),
            ("quantize.qat", qat),
        )
        for name, tuning in tuned:
            if tuning is not None and not tuning.distill:
                raise ValueError(f"stages.{name}.distill: must be true {why}")
        for name, training in (("distill", stages.distill), *tuned):
            if training is not None and training.soft_weight < 1:
                raise ValueError(f"stages.{name}.soft_weight: must be 1 {why} (found {training.soft_weight})")


def parse_recipe(document: Any, source: str = "recipe") -> Recipe:
    """Validate a recipe given as plain values.

    Args:
        document: mapping of keys, as YAML gives it; ${VARIABLES} are expanded.
        source: name of the document for error texts.

    Raises:
        RecipeError: with the path of every wrong key, what was found and what is right.
    """
    if not isinstance(document, dict):
        raise RecipeError(
            "A recipe is a mapping of keys.",
            where=source,
            expected=", ".join(Recipe.model_fields),
            got="an empty document" if document is None else type(document).__name__,
        )
    try:
        return Recipe.model_validate(expand(plain(document, source), ""))
    except ValidationError as error:
        raise refusal(error, Recipe, source) from error


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides, resolve relative paths against its folder.

    Raises:
        RecipeError: the file is missing, is not YAML, or does not validate.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError("There is no such recipe.", where=str(path), remedy="give the path of a YAML file") from error
    except (OSError, ValueError) as error:
        raise RecipeError(
            "The recipe cannot be read.", where=str(path), expected="a YAML file in UTF-8", got=str(error)
        ) from error
    document = read_yaml(text, str(path))
    if isinstance(document, dict):
        for item in overrides:
            override(document, item)
    return resolve_paths(parse_recipe(document, str(path)), path.resolve().parent)


def resolve_paths(recipe: Recipe, base: Path) -> Recipe:
    """The same recipe with relative paths made absolute against `base`.

    Raises:
        RecipeError: a path is empty, or starts with the home folder of an unknown user.
    """
    checkpoint = recipe.checkpoint
    checkpoint = checkpoint.model_copy(update={"path": _absolute(checkpoint.path, base, "checkpoint.path")})
    data = recipe.data
    if data.path is not None:
        data = data.model_copy(update={"path": _absolute(data.path, base, "data.path")})
    changed: dict[str, Any] = {"checkpoint": checkpoint, "data": data}
    if any(map(is_file_name, recipe.targets)):
        changed["targets"] = tuple(
            _absolute(name, base, "targets") if is_file_name(name) else name for name in recipe.targets
        )
    return recipe.model_copy(update=changed)


def _absolute(path: str, base: Path, key: str) -> str:
    if not path:
        raise RecipeError("The path is empty.", where=key, expected="a file or folder", remedy=f"correct {key}")
    try:
        return str(base / Path(path).expanduser())
    except RuntimeError as error:
        raise RecipeError("The home folder of this path is unknown.", where=key, got=path) from error
