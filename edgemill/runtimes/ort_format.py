"""onnxruntime's own format, which its minimal builds load."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options

MODEL, OPERATORS = "model.ort", "required_operators_and_types.config"
"""Names in the folder: the graph, and what a minimal build must contain to run it."""


class OrtFormat:
    """Loads folders with a model in onnxruntime's format."""

    name = "onnxruntime"
    kinds: tuple[str, ...] = ("ort",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`."""
        return OnnxRuntimeModel(path / MODEL, session_options(threads))

    def version(self) -> str:
        """See `Runtime.version`."""
        return str(onnxruntime.__version__)


RUNTIME: Runtime = OrtFormat()
