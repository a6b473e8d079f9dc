"""How models reach targets that run TensorRT."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_TENSORRT
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class TensorRtBackend:
    """From the ONNX files that are made for onnxruntime; the compile step gives QDQ pairs NVIDIA's form."""

    name = "tensorrt"
    step: Step = COMPILE_TENSORRT
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


TENSORRT_BACKEND: Backend = TensorRtBackend()
