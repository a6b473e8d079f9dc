"""How models reach targets that run IREE."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_IREE
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class IreeBackend:
    """From the same ONNX files as onnxruntime: fp32, and quantized with QDQ pairs."""

    name = "iree"
    step: Step = COMPILE_IREE
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


IREE_BACKEND: Backend = IreeBackend()
