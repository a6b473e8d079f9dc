"""How models reach targets that run Apache TVM."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_TVM
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class TvmBackend:
    """From the same ONNX files as onnxruntime: fp32, and quantized with QDQ pairs."""

    name = "tvm"
    step: Step = COMPILE_TVM
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


TVM_BACKEND: Backend = TvmBackend()
