"""Quantize: from fp32 to 8-bit integers or half precision."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.recipe import Budget, Calibration, Gates, Granularity, Qat, Repair, Task, Wider
from edgemill.step import Step
from edgemill.targets.spec import Int8Arithmetic


class StaticSettings(Frozen):
    """Settings of `quantize.static`."""

    int8: Int8Arithmetic = Field(description="arithmetic of the target: activation type and weight range")
    calibration: Calibration = Calibration.MINMAX
    percentile: float = Field(99.99, gt=50, le=100, description="used by calibration: percentile")
    granularity: Granularity = Granularity.PER_CHANNEL
    batch_size: int = Field(32, gt=0, description="most calibration samples per inference")
    calibration_memory_bytes: int = Field(
        1 << 30, gt=0, description="memory that calibration stays within, by smaller batches or more passes"
    )
    repair: tuple[Repair, ...] = Field((), description="what wins accuracy back; always in one order")


class MixedSettings(StaticSettings):
    """Settings of `quantize.mixed`: those of `quantize.static`, and what a candidate must prove."""

    task: Task = Task.CLASSIFICATION
    budget: Budget = Field(description="margin and one-sided confidence of the gate, on the validation samples")
    gates: Gates = Field(default=Gates(), description="checks beside the budget")
    wider: tuple[Wider, ...] = Field(
        (Wider.FP32,),
        description="formats of what int8 breaks: fp16 stores its weights as float16 where that passes, too",
    )
    int4_weights: bool = Field(
        False, description="matrix products with 4-bit weights and float activations where that passes, too"
    )
    evaluations: int = Field(12, gt=0, description="most passes over the validation samples")


class DynamicSettings(Frozen):
    """Settings of `quantize.dynamic`."""

    int8: Int8Arithmetic = Field(description="arithmetic of the target: weight range")
    granularity: Granularity = Granularity.PER_CHANNEL


class Fp16Settings(Frozen):
    """Settings of `quantize.fp16`."""

    batch_size: int = Field(32, gt=0, description="calibration samples per inference in the overflow check")


class LitertScheme(StrEnum):
    """Number format of a LiteRT file."""

    FP32 = "fp32"
    """Everything float32."""
    FP16 = "fp16"
    """Weights stored as float16, computed as float32 unless the delegate can do better."""
    INT8_DYNAMIC = "int8_dynamic"
    """Weights int8, activations quantized at run time, float32 input and output."""
    INT8_STATIC = "int8_static"
    """Everything int8, input and output too."""


class LitertSettings(Frozen):
    """Settings of `quantize.litert`."""

    scheme: LitertScheme
    granularity: Granularity = Granularity.PER_CHANNEL


class QatSettings(Frozen):
    """Settings of `quantize.qat`."""

    task: Task = Task.CLASSIFICATION
    training: Qat = Qat()
    calibration_batch_size: int = Field(50, gt=0, description="calibration samples per inference")


class UnsignedSettings(Frozen):
    """Settings of `quantize.unsigned_weights`: there are none."""


_ONNX = ("onnx", "onnxruntime", "numpy")
_TENSORFLOW = ("tensorflow", "tf-keras", "numpy")

STATIC = Step(name="quantize.static", version=2, body="edgemill.quantize.static:run", tools=_ONNX)
"""Inputs `onnx`, `data`; output `onnx`: QDQ int8 with ranges from the calibration split."""

MIXED = Step(
    name="quantize.mixed",
    version=1,
    body="edgemill.quantize.mixed.step:run",
    tools=(*_ONNX, "scipy"),
    time_limit_s=8 * 3600.0,
)
"""Inputs `onnx`, `data`, and `checkpoint` (the fp32 ONNX that the gate compares with; left out: `onnx` itself).

Output `onnx`: as from `quantize.static`, with the operators float that int8 would break.
"""

DYNAMIC = Step(name="quantize.dynamic", version=1, body="edgemill.quantize.dynamic:run", tools=_ONNX)
"""Input `onnx`; output `onnx`: int8 weights, activations quantized at run time."""

UNSIGNED_WEIGHTS = Step(
    name="quantize.unsigned_weights", version=1, body="edgemill.quantize.unsigned_weights:run", tools=_ONNX
)
"""Input `onnx` with uint8 activations and int8 weights; output `onnx`: the same numbers with uint8 weights."""

FP16 = Step(name="quantize.fp16", version=2, body="edgemill.quantize.fp16:run", tools=_ONNX)
"""Input `onnx`, optionally `data`; output `onnx`: float16 inside, float32 input and output."""

LITERT = Step(
    name="quantize.litert",
    version=1,
    body="edgemill.quantize.litert:run",
    framework="tensorflow",
    tools=(*_TENSORFLOW, "ai-edge-litert"),
)
"""Input `keras` or `saved_model`, `data` for int8_static; output `tflite`."""

QAT = Step(
    name="quantize.qat",
    version=3,
    body="edgemill.quantize.qat:run",
    framework="tensorflow",
    tools=(*_TENSORFLOW, "tensorflow-model-optimization", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert"),
)
"""Inputs `keras`, `data`, and `teacher` (the checkpoint's fp32 ONNX) where the training distills.

Outputs `tflite`, `onnx_uint8` (x86) and `onnx_int8` (ARM), all on the same learnt grid.
"""

__all__ = [
    "DYNAMIC",
    "FP16",
    "LITERT",
    "MIXED",
    "QAT",
    "STATIC",
    "UNSIGNED_WEIGHTS",
    "DynamicSettings",
    "Fp16Settings",
    "LitertScheme",
    "LitertSettings",
    "MixedSettings",
    "QatSettings",
    "StaticSettings",
    "UnsignedSettings",
]
