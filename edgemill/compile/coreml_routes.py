"""How models reach Core ML."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_COREML
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class CoreMlBackend:
    """From the fp32 ONNX model, which becomes a PyTorch module; the converter itself rounds to half precision."""

    name = "coreml"
    step: Step = COMPILE_COREML
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        if "onnx" not in available:
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        return Route(None, None)


COREML_BACKEND: Backend = CoreMlBackend()
