"""The recipe: everything a run needs to know, as one validated value.

The field descriptions are also what the Prefect form shows.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgemill.errors import RecipeError

FUNCTION = r"^python:[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
DEFAULT_TARGETS = ("x86-64-onnxruntime", "arm64-onnxruntime", "android-litert")


class Section(BaseModel):
    """Base of every part of the recipe: immutable, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=False)


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
        description="python:module:function that builds the model; needed for a bare TensorFlow checkpoint",
    )
    tolerance: float = Field(
        1e-4, gt=0, description="largest difference, relative to the output range, between the original and its rebuilt twin"
    )
    max_bytes: int = Field(4 << 30, gt=0, description="refuse a checkpoint that is, or unpacks to, more bytes")


class Preprocess(Section):
    """model input = (stored / scale - mean) / std, in float32."""

    scale: float = Field(1.0, gt=0)
    mean: float = 0.0
    std: float = Field(1.0, gt=0)


class Split(Section):
    """How many samples each split takes. No sample is ever in two splits."""

    validation: int = Field(gt=0, description="samples on which candidates are compared")
    calibration: int = Field(300, gt=0, description="samples that set quantization ranges")
    test: int | None = Field(
        None, gt=0, description="samples for the final gate; leave out where the source has its own test set"
    )
    seed: int = Field(0, description="seed of the permutation that makes the splits")
    calibration_within_validation: bool = Field(
        False, description="take the calibration samples off the front of validation instead of off training"
    )


class Data(Section):
    """Where the samples come from."""

    source: str = Field(
        description="idx | npz | npy | image_folder | parquet | sklearn:NAME | python:module:function"
    )
    path: str | None = Field(None, description="file or folder; ${VARIABLES} are expanded")
    preprocess: Preprocess = Preprocess()
    split: Split
    options: dict[str, Any] = Field(
        default_factory=dict, description="settings of the source, e.g. label_column for parquet, image_size for image_folder"
    )


class Budget(Section):
    """What compression may cost."""

    max_accuracy_drop: float = Field(
        0.005,
        gt=0,
        lt=1,
        description="non-inferiority margin: largest drop of the score that is accepted (0.005 = half a point)",
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

    epochs: int = Field(10, gt=0)
    batch_size: int = Field(128, gt=0)
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of the cosine schedule")
    optimizer: Optimizer = Optimizer.ADAM
    patience: int | None = Field(None, gt=0, description="stop after this many epochs without a better validation score")
    augment: Augment = Augment()


class Family(StrEnum):
    """Built-in student architectures (MLPerf Tiny class)."""

    RESNET8 = "resnet8"
    DS_CNN = "ds_cnn"
    MOBILENET_V1 = "mobilenet_v1"
    MLP_AUTOENCODER = "mlp_autoencoder"


class Student(Section):
    """The smaller model that learns from the checkpoint. Exactly one of width, family, function... or width with family."""

    width: float | None = Field(None, gt=0, le=1, description="factor on the channel counts")
    family: Family | None = Field(None, description="built-in architecture instead of the checkpoint's own graph")
    function: str | None = Field(
        None, pattern=FUNCTION, description="python:module:function(input_shape, outputs) that returns a tf_keras model"
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

    student: Student
    method: DistillMethod = DistillMethod.RESPONSE
    temperature: float = Field(3.0, gt=0)
    soft_weight: float = Field(0.7, ge=0, le=1, description="share of the teacher's answers in the loss; the rest are the labels")
    feature_weight: float = Field(50.0, ge=0, description="weight of the feature loss (attention, fitnets)")
    optimizer: Optimizer = Optimizer.SGD
    learning_rate: float = Field(0.1, gt=0, description="highest learning rate of the cosine schedule")


class PruneMethod(StrEnum):
    """Which weights go."""

    MAGNITUDE = "magnitude"
    """The smallest weights, by a polynomial schedule (Zhu and Gupta 2017)."""
    N_M = "n_m"
    """Two of every four weights along the input channels (2:4)."""


class Prune(Training):
    """Set weights to zero and fine-tune the rest."""

    method: PruneMethod = PruneMethod.MAGNITUDE
    sparsity: float = Field(0.5, gt=0, lt=1, description="share of zero weights per layer at the end (magnitude only)")
    epochs: int = Field(4, gt=0)
    distill: bool = Field(True, description="fine-tune on the checkpoint's answers as well as on the labels")
    temperature: float = Field(3.0, gt=0)
    soft_weight: float = Field(0.7, ge=0, le=1)


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

    epochs: int = Field(2, gt=0)
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate of the cosine schedule")
    distill: bool = Field(True, description="train on the checkpoint's answers as well as on the labels")
    temperature: float = Field(3.0, gt=0)
    soft_weight: float = Field(0.7, ge=0, le=1)


class Quantize(Section):
    """Which number formats are tried."""

    schemes: tuple[Scheme, ...] = Field((Scheme.INT8_STATIC,), min_length=1)
    calibration: Calibration = Calibration.MINMAX
    percentile: float = Field(99.99, gt=50, le=100, description="used by calibration: percentile")
    granularity: Granularity = Granularity.PER_CHANNEL
    qat: Qat = Qat()

    @model_validator(mode="after")
    def _no_scheme_twice(self) -> Self:
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("a scheme is listed twice")
        return self


class Stages(Section):
    """The compressing stages, each optional, always in this order."""

    distill: Distill | None = None
    prune: Prune | None = None
    quantize: Quantize = Quantize()


class Benchmark(Section):
    """How latency is measured."""

    threads: int = Field(1, gt=0, description="threads of the runtime")
    batch: int = Field(1, gt=0)
    rounds: int = Field(30, ge=5, description="interleaved blocks of variant and baseline")
    runs_per_round: int = Field(20, ge=1)


class Recipe(Section):
    """What to compress, with which data, how far, and for which targets."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the model: lower case, digits, dashes")
    checkpoint: Checkpoint
    data: Data
    task: Task = Task.CLASSIFICATION
    budget: Budget = Budget()
    stages: Stages = Stages()
    targets: tuple[str, ...] = Field(DEFAULT_TARGETS, min_length=1, description="names from `edgemill targets`")
    benchmark: Benchmark = Benchmark()
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("targets: a target is listed twice")
        distill = self.stages.distill
        if self.task is Task.UNLABELLED and distill is not None and distill.soft_weight < 1:
            raise ValueError("stages.distill.soft_weight: must be 1 for task unlabelled, there are no labels to learn from")
        return self


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, str):

        def variable(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in os.environ:
                raise RecipeError(
                    f"Environment variable {name} is not set.", where=where, remedy=f"export {name}=... and run again"
                )
            return os.environ[name]

        return re.sub(r"\$\{(\w+)\}", variable, value)
    if isinstance(value, dict):
        return {key: _expand(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, f"{where}.{index}") for index, item in enumerate(value)]
    return value


def _refusal(error: ValidationError, source: str) -> RecipeError:
    details = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"]) or "recipe"
        found = "" if item["type"] == "missing" or isinstance(item["input"], dict) else f" (found {item['input']!r})"
        details.append(f"{path}: {_explain(item)}{found}")
    return RecipeError(
        f"The recipe has {len(details)} mistake{'s' if len(details) > 1 else ''}.",
        where=source,
        got="; ".join(details),
        remedy="correct the named keys; docs/recipe.md lists all of them",
    )


def _explain(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        parent: type[BaseModel] | None = Recipe
        for part in item["loc"][:-1]:
            parent = _child(parent, str(part))
        known = ", ".join(sorted(parent.model_fields)) if parent is not None else ""
        return f"unknown key; known here: {known}" if known else "unknown key"
    message: str = item["msg"]
    return message.removeprefix("Value error, ")


def _child(parent: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    if parent is None or key not in parent.model_fields:
        return None
    annotation = parent.model_fields[key].annotation
    for option in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def parse_recipe(document: Any, source: str = "recipe") -> Recipe:
    """Validate a recipe given as plain values.

    Raises:
        RecipeError: with the path of every wrong key, what was found and what is right.
    """
    if not isinstance(document, dict):
        raise RecipeError("A recipe is a mapping of keys.", where=source, got=type(document).__name__)
    try:
        return Recipe.model_validate(_expand(document, ""))
    except ValidationError as error:
        raise _refusal(error, source) from error


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe file, apply `key.path=value` overrides, resolve relative paths against its folder.

    Raises:
        RecipeError: the file is missing, is not YAML, or does not validate.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError("There is no such recipe.", where=str(path), remedy="give the path of a YAML file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError("The recipe cannot be read as YAML.", where=str(path), got=str(error)) from error
    for override in overrides:
        _override(document, override)
    recipe = parse_recipe(document, str(path))
    return resolve_paths(recipe, path.resolve().parent)


def _override(document: Any, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError("An override has the form key.path=value.", where="--set", got=override)
    node = document
    *parents, last = key.split(".")
    for part in parents:
        if not isinstance(node, dict):
            raise RecipeError("An override goes through something that is not a mapping.", where=f"--set {override}", got=part)
        node = node.setdefault(part, {})
    if not isinstance(node, dict):
        raise RecipeError("An override goes through something that is not a mapping.", where=f"--set {override}", got=last)
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError("The value of an override is not YAML.", where=f"--set {override}", got=text) from error


def resolve_paths(recipe: Recipe, base: Path) -> Recipe:
    """The same recipe with relative paths made absolute against `base`."""
    checkpoint = recipe.checkpoint.model_copy(update={"path": str(base / Path(recipe.checkpoint.path).expanduser())})
    data = recipe.data
    if data.path is not None:
        data = data.model_copy(update={"path": str(base / Path(data.path).expanduser())})
    return recipe.model_copy(update={"checkpoint": checkpoint, "data": data})
