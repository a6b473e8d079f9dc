"""How models reach apps with onnxruntime's minimal build, which loads its own format only."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_ORT_FORMAT
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class OrtFormatBackend:
    """The files of onnxruntime, in another container."""

    name = "ort_format"
    step: Step = COMPILE_ORT_FORMAT
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


ORT_FORMAT_BACKEND: Backend = OrtFormatBackend()
