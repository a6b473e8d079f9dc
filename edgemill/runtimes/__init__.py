"""Inference runtimes: one adapter per file, the same on the host and on the device."""

from __future__ import annotations

import importlib
from pathlib import Path

from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime

__all__ = ["LoadedModel", "Runtime", "open_model", "runtime_of"]

_ADAPTERS = {
    "onnx": ("edgemill.runtimes.onnxruntime", "onnxruntime"),
    "tflite": ("edgemill.runtimes.litert", "ai-edge-litert"),
    "openvino": ("edgemill.runtimes.openvino", "openvino"),
    "tflite-micro": ("edgemill.runtimes.tflm", "tflite-micro"),
    "executorch": ("edgemill.runtimes.executorch", "executorch"),
    "ort": ("edgemill.runtimes.ort_format", "onnxruntime"),
    "qnn": ("edgemill.runtimes.qnn", "onnxruntime-qnn"),
    "rknn-source": ("edgemill.runtimes.rknn", "rknn-toolkit2"),
    "ncnn": ("edgemill.runtimes.ncnn", "ncnn"),
    "tvm": ("edgemill.runtimes.tvm", "apache-tvm"),
    "iree": ("edgemill.runtimes.iree", "iree-base-runtime"),
    "program": ("edgemill.runtimes.program", "edgemill"),
}
"""For every kind of model file, the module of its adapter and the distribution that it needs."""


def runtime_of(kind: str) -> Runtime:
    """The runtime that loads files of a kind; imported now, so that a device needs only its own.

    Raises:
        ToolchainError: no runtime loads this kind, or it is not installed.
    """
    if kind not in _ADAPTERS:
        raise ToolchainError("No runtime loads this kind of file.", got=kind, expected=", ".join(_ADAPTERS))
    module, distribution = _ADAPTERS[kind]
    try:
        runtime: Runtime = importlib.import_module(module).RUNTIME
    except ImportError as error:
        raise ToolchainError(
            f"The runtime for {kind} files cannot be imported.",
            where=module,
            got=str(error),
            remedy=f"pip install {distribution}",
        ) from error
    return runtime


def open_model(path: Path, kind: str, threads: int = 1) -> LoadedModel:
    """Load a model file with the runtime of its kind.

    Args:
        path: the file.
        kind: kind of the artifact: onnx or tflite.
        threads: threads of one inference.

    Raises:
        ToolchainError: no such runtime, or it cannot load the file.
    """
    return runtime_of(kind).load(path, threads)
