"""The recipe: everything a run needs to know, as one validated value.

The field descriptions are also what the Prefect form shows.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from edgemill.artifact import canonical_json
from edgemill.errors import RecipeError
from edgemill.recipe_text import expand, override, plain, read_yaml, refusal

FUNCTION = r"^python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
SOURCE = (
    r"^(idx|npz|npy|image_folder|parquet|sklearn:(digits|iris|wine|breast_cancer|diabetes)"
    r"|python:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)$"
)
DEFAULT_TARGETS = ("x86-64-onnxruntime", "arm64-onnxruntime", "android-litert")


class Section(BaseModel):
    """Base of every part of the recipe: immutable, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML reads yes and on as true, which would pass for the number 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *getattr(annotation, "__args__", ())}:
            raise ValueError("must be a number, not true or false")
        return value


class Task(StrEnum):
    """What the model answers, and so how it is scored."""

    CLASSIFICATION = "classification"
    """Integer labels; score = accuracy (higher is better)."""
    REGRESSION = "regression"
    """Real-valued targets; score = negated mean absolute error (higher is better)."""
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


class Budget(Section):
    """What compression may cost."""

    max_accuracy_drop: float = Field(
        0.005,
        gt=0,
        description="non-inferiority margin: largest drop of the score that is accepted (0.005 = half a point of "
        "accuracy; for regression in the unit of the target); below 1 but for regression",
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="one-sided confidence of the gate")


class Augment(Section):
    """Random changes of training images."""

    flip: bool = Field(False, description="mirror left-right")
    shift: int = Field(0, ge=0, description="move by up to this many pixels, edges padded with zeros")


class Optimizer(StrEnum):
    """How weights are updated."""

    SGD = "sgd"
    """Nesterov momentum 0.9 with a cosine schedule: for training from the start."""
    ADAM = "adam"
    """Adam with a cosine schedule: for fine-tuning."""


class Training(Section):
    """Settings shared by everything that trains."""

    epochs: int = Field(10, gt=0, description="passes over the training samples")
    batch_size: int = Field(128, gt=0, description="samples per update")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the cosine schedule")
    optimizer: Optimizer = Field(Optimizer.ADAM, description="how weights are updated")
    patience: int | None = Field(
        None, gt=0, description="stop after this many epochs without a better validation score"
    )
    augment: Augment = Field(Augment(), description="random changes of training images")


class Family(StrEnum):
    """Built-in student architectures (MLPerf Tiny class)."""

    RESNET8 = "resnet8"
    DS_CNN = "ds_cnn"
    MOBILENET_V1 = "mobilenet_v1"
    MLP_AUTOENCODER = "mlp_autoencoder"


class Student(Section):
    """The smaller model that learns: the checkpoint's graph narrowed, a built-in family, or your own function."""

    width: float | None = Field(
        None, gt=0, le=1, description="factor on the channel counts of the checkpoint's graph, or of the family"
    )
    family: Family | None = Field(None, description="built-in architecture instead of the checkpoint's own graph")
    function: str | None = Field(
        None,
        pattern=FUNCTION,
        description="python:module:function(input_shape, outputs), beside the checkpoint, that gives a tf_keras model",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.function is not None and (self.width is not None or self.family is not None):
            raise ValueError("function excludes width and family")
        if self.function is None and self.width is None and self.family is None:
            raise ValueError("one of width, family, function is needed")
        return self


class DistillMethod(StrEnum):
    """What the student imitates."""

    RESPONSE = "response"
    """The softened outputs (Hinton et al. 2015)."""
    ATTENTION = "attention"
    """Outputs and spatial attention maps (Zagoruyko and Komodakis 2017)."""
    FITNETS = "fitnets"
    """Outputs and a hint layer through a learnt regressor (Romero et al. 2015)."""


class Distill(Training):
    """Train a smaller student on the answers of the checkpoint."""

    student: Student = Field(description="the smaller model: at least one of width, family, function")
    method: DistillMethod = Field(DistillMethod.RESPONSE, description="what the student imitates")
    temperature: float = Field(3.0, gt=0, description="softens the teacher's answers; 1 leaves them as they are")
    soft_weight: float = Field(
        0.7, ge=0, le=1, description="share of the teacher's answers in the loss; the rest are the labels"
    )
    feature_weight: float = Field(50.0, ge=0, description="weight of the feature loss (attention, fitnets)")
    optimizer: Optimizer = Field(Optimizer.SGD, description="how weights are updated")
    learning_rate: float = Field(0.1, gt=0, description="highest learning rate of the cosine schedule")


class PruneMethod(StrEnum):
    """Which weights go."""

    MAGNITUDE = "magnitude"
    """The smallest weights, by a polynomial schedule (Zhu and Gupta 2017)."""
    N_M = "n_m"
    """Two of every four weights along the input channels (2:4)."""


class Prune(Training):
    """Set weights to zero and fine-tune the rest."""

    method: PruneMethod = Field(PruneMethod.MAGNITUDE, description="which weights go")
    sparsity: float = Field(
        0.5, gt=0, lt=1, description="share of zero weights per layer at the end; always 0.5 with method n_m"
    )
    epochs: int = Field(4, gt=0, description="passes over the training samples")
    distill: bool = Field(True, description="fine-tune on the checkpoint's answers as well as on the labels")
    temperature: float = Field(3.0, gt=0, description="softens the checkpoint's answers")
    soft_weight: float = Field(0.7, ge=0, le=1, description="share of the checkpoint's answers in the loss")

    @model_validator(mode="after")
    def _two_of_four(self) -> Self:
        if self.method is PruneMethod.N_M and self.sparsity != 0.5:
            raise ValueError(f"sparsity must be 0.5 with method n_m, which zeroes two of four (found {self.sparsity})")
        return self


class Scheme(StrEnum):
    """A way to store and compute numbers."""

    INT8_STATIC = "int8_static"
    """Weights and activations int8, ranges from calibration samples."""
    INT8_QAT = "int8_qat"
    """As int8_static, with the weights trained under quantization."""
    INT8_DYNAMIC = "int8_dynamic"
    """Weights int8, activations quantized at run time. For MatMul and recurrent models."""
    FP16 = "fp16"
    """Half precision weights."""


class Calibration(StrEnum):
    """How an activation range is found from calibration samples."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


class Granularity(StrEnum):
    """How many scales a weight tensor has."""

    PER_CHANNEL = "per_channel"
    PER_TENSOR = "per_tensor"


class Qat(Training):
    """Quantization-aware training."""

    epochs: int = Field(2, gt=0, description="passes over the training samples")
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate of the cosine schedule")
    distill: bool = Field(True, description="train on the checkpoint's answers as well as on the labels")
    temperature: float = Field(3.0, gt=0, description="softens the checkpoint's answers")
    soft_weight: float = Field(0.7, ge=0, le=1, description="share of the checkpoint's answers in the loss")


class Quantize(Section):
    """Which number formats are tried."""

    schemes: tuple[Scheme, ...] = Field((Scheme.INT8_STATIC,), min_length=1, description="each becomes a candidate")
    calibration: Calibration = Field(Calibration.MINMAX, description="how activation ranges are found")
    percentile: float = Field(99.99, gt=50, le=100, description="used by calibration: percentile")
    granularity: Granularity = Field(Granularity.PER_CHANNEL, description="how many scales a weight tensor has")
    qat: Qat = Field(Qat(), description="training for the scheme int8_qat")

    @model_validator(mode="after")
    def _no_scheme_twice(self) -> Self:
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("a scheme is listed twice")
        return self


class Stages(Section):
    """The compressing stages, each optional, always in this order."""

    distill: Distill | None = Field(None, description="train a smaller student; left out: not done")
    prune: Prune | None = Field(None, description="set weights to zero; left out: not done")
    quantize: Quantize = Field(Quantize(), description="number formats that are tried")


class Benchmark(Section):
    """How latency is measured."""

    threads: int = Field(1, gt=0, description="threads of the runtime")
    batch: int = Field(1, gt=0, description="samples per inference")
    rounds: int = Field(30, ge=5, description="interleaved blocks of variant and baseline")
    runs_per_round: int = Field(20, ge=1, description="inferences per block")


class Recipe(Section):
    """What to compress, with which data, how far, and for which targets."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the model: lower case, digits, dashes")
    checkpoint: Checkpoint = Field(description="the trained model to start from")
    data: Data = Field(description="where the samples come from")
    task: Task = Field(Task.CLASSIFICATION, description="what the model answers, and so how it is scored")
    budget: Budget = Field(Budget(), description="what compression may cost")
    stages: Stages = Field(Stages(), description="the compressing stages")
    targets: tuple[str, ...] = Field(DEFAULT_TARGETS, min_length=1, description="names from `edgemill targets`")
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
        if self.task is Task.UNLABELLED:
            self._needs_no_labels()
        return self

    def _needs_no_labels(self) -> None:
        why = "for task unlabelled, there are no labels to learn from"
        stages = self.stages
        qat = stages.quantize.qat if Scheme.INT8_QAT in stages.quantize.schemes else None
        for name, tuning in (("prune", stages.prune), ("quantize.qat", qat)):
            if tuning is not None and not tuning.distill:
                raise ValueError(f"stages.{name}.distill: must be true {why}")
        for name, training in (("distill", stages.distill), ("prune", stages.prune), ("quantize.qat", qat)):
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
    return recipe.model_copy(update={"checkpoint": checkpoint, "data": data})


def _absolute(path: str, base: Path, key: str) -> str:
    if not path:
        raise RecipeError("The path is empty.", where=key, expected="a file or folder", remedy=f"correct {key}")
    try:
        return str(base / Path(path).expanduser())
    except RuntimeError as error:
        raise RecipeError("The home folder of this path is unknown.", where=key, got=path) from error
