"""Load model files with the runtimes' adapters in chosen kernels; used on the host and inside the emulator."""

from __future__ import annotations

from pathlib import Path

from edgemill.errors import ToolchainError
from edgemill.runtimes import open_model
from edgemill.runtimes.base import LoadedModel

EXACT_PRODUCTS = "session.x64quantprecision"
"""onnxruntime's session option, kOrtSessionOptionsAvx2PrecisionMode: only effective on x86 without VNNI."""


def open_kernels(path: Path, kind: str, exact: bool, threads: int = 1) -> LoadedModel:
    """Load a model file.

    Graphs with int8 activations do not load with exact products (onnxruntime 1.32 finds no kernel for int8 x
    uint8); they get the runtime's own choice.

    Args:
        path: the file.
        kind: onnx or tflite.
        exact: `Kernels.EXACT` instead of the runtime's own choice; LiteRT has exact products anyway.
        threads: threads of one inference.

    Raises:
        ToolchainError: no such runtime, or it cannot load the file.
    """
    if not (exact and kind == "onnx"):
        return open_model(path, kind, threads)
    from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options

    options = session_options(threads)
    options.add_session_config_entry(EXACT_PRODUCTS, "1")
    try:
        return OnnxRuntimeModel(path, options)
    except ToolchainError:
        return open_model(path, kind, threads)
