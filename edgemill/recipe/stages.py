"""The compressing stages and their settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from edgemill.recipe.section import FUNCTION, Section


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
    """All values seen."""
    ENTROPY = "entropy"
    """The quantized values tell most about the real ones (least Kullback-Leibler divergence)."""
    PERCENTILE = "percentile"
    """All but a given share of the values."""
    MSE = "mse"
    """The quantized values are nearest to the real ones (least mean squared error)."""


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
    calibration_memory_bytes: int = Field(
        1 << 30, gt=0, description="memory that calibration may take; with less it takes more passes"
    )
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
