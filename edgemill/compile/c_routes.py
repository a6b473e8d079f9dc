"""How models reach targets that get C without a runtime."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_C
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class CBackend:
    """From the same ONNX files as onnxruntime; int8 as QDQ pairs, which become integer operators and these C."""

    name = "c"
    step: Step = COMPILE_C
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


C_BACKEND: Backend = CBackend()
