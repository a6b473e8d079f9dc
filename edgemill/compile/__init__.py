"""Compilation: a candidate's file becomes a variant for one target. One backend per kind of runtime."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.recipe import Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target

__all__ = [
    "COMPILE_C",
    "COMPILE_COREML",
    "COMPILE_EXECUTORCH",
    "COMPILE_IREE",
    "COMPILE_LITERT",
    "COMPILE_NCNN",
    "COMPILE_OPENVINO",
    "COMPILE_ORT",
    "COMPILE_ORT_FORMAT",
    "COMPILE_QNN",
    "COMPILE_RKNN",
    "COMPILE_TENSORRT",
    "COMPILE_TFLM",
    "COMPILE_TVM",
    "COMPILE_VELA",
    "CompileSettings",
]

COMPILE_ORT = Step(
    name="compile.onnxruntime",
    version=2,
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
    version=2,
    body="edgemill.compile.openvino:run",
    tools=("openvino", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (openvino)."""


COMPILE_C = Step(
    name="compile.c",
    version=1,
    body="edgemill.compile.c_body:run",
    tools=("emx-onnx-cgen", "onnxruntime", "onnx", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; outputs: model (c), executable (program)."""

COMPILE_NCNN = Step(
    name="compile.ncnn",
    version=1,
    body="edgemill.compile.ncnn:run",
    tools=("ncnn", "pnnx", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (ncnn)."""

COMPILE_TVM = Step(
    name="compile.tvm",
    version=1,
    body="edgemill.compile.tvm:run",
    tools=("apache-tvm", "onnx", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (tvm)."""

COMPILE_IREE = Step(
    name="compile.iree",
    version=1,
    body="edgemill.compile.iree:run",
    tools=("iree-base-compiler", "iree-base-runtime", "onnx", "onnxruntime", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (iree)."""

COMPILE_TENSORRT = Step(
    name="compile.tensorrt",
    version=1,
    body="edgemill.compile.tensorrt:run",
    tools=("onnx", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (tensorrt)."""

COMPILE_QNN = Step(
    name="compile.qnn",
    version=1,
    body="edgemill.compile.qnn:run",
    tools=("onnxruntime-qnn", "onnx", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (qnn)."""

COMPILE_ORT_FORMAT = Step(
    name="compile.ort_format",
    version=2,
    body="edgemill.compile.ort_format:run",
    tools=("onnxruntime", "onnx", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (ort)."""

COMPILE_RKNN = Step(
    name="compile.rknn",
    version=1,
    body="edgemill.compile.rknn:run",
    tools=("rknn-toolkit2", "onnx", "onnxruntime", "numpy"),
    time_limit_s=1800.0,
    varies="RKNN leaves bytes of its file uninitialized",
)
"""inputs: model (onnx), data; settings: CompileSettings; outputs: model (rknn), executable (rknn-source)."""


COMPILE_TFLM = Step(
    name="compile.tflm",
    version=1,
    body="edgemill.compile.tflm:run",
    tools=("tflite-micro", "ai-edge-litert", "numpy"),
    time_limit_s=1800.0,
)
"""inputs: model (tflite), data; settings: CompileSettings; output: model (tflite-micro)."""

COMPILE_VELA = Step(
    name="compile.vela",
    version=1,
    body="edgemill.compile.vela:run",
    tools=("ethos-u-vela", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model (tflite), data; settings: CompileSettings; outputs: model (vela), executable (tflite-micro)."""

COMPILE_EXECUTORCH = Step(
    name="compile.executorch",
    version=1,
    body="edgemill.compile.executorch:run",
    tools=("executorch", "torch", "pnnx", "onnxruntime", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (executorch)."""

COMPILE_COREML = Step(
    name="compile.coreml",
    version=1,
    body="edgemill.compile.coreml:run",
    tools=("coremltools", "torch", "pnnx", "onnxruntime", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model (onnx), data; settings: CompileSettings; output: model (coreml)."""


class CompileSettings(Frozen):
    """Settings of every compile step."""

    target: Target
    scheme: Scheme | None = Field(None, description="number format of the model; None for fp32")
