"""What goes in: the task, the checkpoint and the data."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from edgemill.artifact import canonical_json
from edgemill.recipe.section import FUNCTION, Section

SOURCE = (
    r"^(idx|npz|npy|image_folder|parquet|sklearn:(digits|iris|wine|breast_cancer|diabetes)"
    r"|python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)$"
)


class Task(StrEnum):
    """What the model answers, and so how it is scored."""

    CLASSIFICATION = "classification"
    """Integer labels; score = accuracy (higher is better)."""
    REGRESSION = "regression"
    """Real-valued targets; score = negated mean absolute error (higher is better)."""
    ANOMALY = "anomaly"
    """Labels 0 (normal) and 1 (anomalous); score = area under the ROC curve of the anomaly score."""
    UNLABELLED = "unlabelled"
    """No labels; score = share of samples on which the answer is that of the checkpoint."""


class Checkpoint(Section):
    """The trained model to start from."""

    path: str = Field(description="file or folder; the format is found from its content")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="refuse any other content")
    trust: bool = Field(False, description="allow Lambda layers and custom code stored in the checkpoint to run")
    model_function: str | None = Field(
        None,
        pattern=FUNCTION,
        description="python:module:function, beside the checkpoint, that builds the model of a TensorFlow checkpoint",
    )
    tolerance: float = Field(
        1e-4,
        gt=0,
        description="largest difference, relative to the output range, between the original and its rebuilt twin",
    )
    max_bytes: int = Field(4 << 30, gt=0, description="refuse a checkpoint that is, or unpacks to, more bytes")


class Preprocess(Section):
    """model input = (stored / scale - mean) / std, in float32."""

    scale: float = Field(1.0, gt=0, description="stored values are divided by it first, e.g. 255 for 8-bit images")
    mean: float = Field(0.0, description="taken off the scaled value")
    std: float = Field(1.0, gt=0, description="divides what is left")


class Split(Section):
    """How many samples each split takes. No sample is ever in two splits."""

    validation: int = Field(gt=0, description="samples on which candidates are compared")
    calibration: int = Field(300, gt=0, description="samples that set quantization ranges")
    test: int | None = Field(
        None, gt=0, description="samples for the final gate; leave out where the source has its own test set"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of the permutation that makes the splits")
    calibration_within_validation: bool = Field(
        False, description="take the calibration samples off the front of validation instead of off training"
    )

    @model_validator(mode="after")
    def _calibration_fits(self) -> Self:
        if self.calibration_within_validation and self.calibration > self.validation:
            raise ValueError(
                f"calibration ({self.calibration}) must not exceed validation ({self.validation}) "
                "with calibration_within_validation: true"
            )
        return self


class Data(Section):
    """Where the samples come from."""

    source: str = Field(description="idx | npz | npy | image_folder | parquet | sklearn:NAME | python:module:function")
    path: str | None = Field(
        None, description="file or folder; for python: the folder in which the module is looked up"
    )
    preprocess: Preprocess = Field(Preprocess(), description="model input = (stored / scale - mean) / std")
    split: Split = Field(description="how many samples each split takes")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the source, e.g. label_column for parquet, image_size for image_folder",
    )

    @field_validator("source")
    @classmethod
    def _known_source(cls, source: str) -> str:
        if re.fullmatch(SOURCE, source) is None:
            raise ValueError(
                "must be idx, npz, npy, image_folder, parquet, sklearn:digits, sklearn:iris, sklearn:wine, "
                "sklearn:breast_cancer, sklearn:diabetes or python:module:function"
            )
        return source

    @field_validator("options")
    @classmethod
    def _plain_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(options)
        except (TypeError, ValueError) as error:
            raise ValueError("must hold only text, finite numbers, true/false, lists and mappings") from error
        return options

    @model_validator(mode="after")
    def _path_given(self) -> Self:
        if self.path is None and not self.source.startswith(("sklearn:", "python:")):
            raise ValueError(f"path is required for source {self.source}")
        return self
