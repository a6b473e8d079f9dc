"""Number formats, and how a model is brought into them."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from edgemill.recipe.section import Section
from edgemill.recipe.training import Tuning


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
    INT8_MIXED = "int8_mixed"
    """As int8_static, with the few operators that lose accuracy in a wider format."""


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


class Wider(StrEnum):
    """A number format for what int8 breaks."""

    INT16 = "int16"
    """Activations int16, weights int8."""
    FP16 = "fp16"
    FP32 = "fp32"


class Granularity(StrEnum):
    """How many scales a weight tensor has."""

    PER_CHANNEL = "per_channel"
    PER_TENSOR = "per_tensor"


class Repair(StrEnum):
    """How accuracy lost by int8_static and int8_mixed is won back without training."""

    EQUALIZATION = "cross_layer_equalization"
    """Equal ranges of channels over pairs of layers (Nagel et al. 2019)."""
    SMOOTHQUANT = "smoothquant"
    """Outliers move from activations into the weights of matrix products (Xiao et al. 2023)."""
    MSE_SCALES = "mse_scales"
    """Weight scales with the least mean squared error instead of the largest magnitude."""
    ADAROUND = "adaround"
    """Weights rounded up or down by what the layer's answers lose least by (Nagel et al. 2020)."""
    BIAS_CORRECTION = "bias_correction"
    """The mean error of every channel goes into its bias (Nagel et al. 2019)."""


class Mixed(Section):
    """How int8_mixed finds the operators that need a wider format."""

    wider: tuple[Wider, ...] = Field(
        (), description="formats tried, narrowest first; left out: what the target's runtime has"
    )
    int4_weights: bool = Field(
        False, description="matrix products with 4-bit weights and float activations where that holds the budget too"
    )
    evaluations: int = Field(12, gt=0, description="most passes over the validation samples")


class Qat(Tuning):
    """Quantization-aware training."""

    epochs: int = Field(2, gt=0, description="passes over the training samples")
    learning_rate: float = Field(1e-4, gt=0, description="highest learning rate of the cosine schedule")


class Quantize(Section):
    """Which number formats are tried."""

    schemes: tuple[Scheme, ...] = Field((Scheme.INT8_STATIC,), min_length=1, description="each becomes a candidate")
    calibration: Calibration = Field(Calibration.MINMAX, description="how activation ranges are found")
    percentile: float = Field(99.99, gt=50, le=100, description="used by calibration: percentile")
    calibration_memory_bytes: int = Field(
        1 << 30, gt=0, description="memory that calibration may take; with less it takes more passes"
    )
    granularity: Granularity = Field(Granularity.PER_CHANNEL, description="how many scales a weight tensor has")
    repair: tuple[Repair, ...] = Field((), description="for int8_static and int8_mixed in ONNX; always in this order")
    mixed: Mixed = Field(Mixed(), description="search for the scheme int8_mixed")
    qat: Qat = Field(Qat(), description="training for the scheme int8_qat")

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("a scheme is listed twice")
        if len(set(self.repair)) != len(self.repair):
            raise ValueError("a repair is listed twice")
        return self
