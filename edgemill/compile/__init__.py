"""Compilation: a candidate's file becomes a variant for one target. One backend per kind of runtime."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.recipe import Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target

__all__ = ["COMPILE_LITERT", "COMPILE_OPENVINO", "COMPILE_ORT", "CompileSettings"]

COMPILE_ORT = Step(
    name="compile.onnxruntime",
    version=1,
    body="edgemill.compile.onnxruntime:run",
    tools=("onnxruntime", "onnx", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (onnx)."""

COMPILE_LITERT = Step(
    name="compile.litert",
    version=1,
    body="edgemill.compile.litert:run",
    tools=("ai-edge-litert", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (tflite), data; settings: CompileSettings; output: model (tflite)."""


COMPILE_OPENVINO = Step(
    name="compile.openvino",
    version=1,
    body="edgemill.compile.openvino:run",
    tools=("openvino", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (openvino)."""


class CompileSettings(Frozen):
    """Settings of every compile step."""

    target: Target
    scheme: Scheme | None = Field(None, description="number format of the model; None for fp32")
