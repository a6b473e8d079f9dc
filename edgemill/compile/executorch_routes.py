"""How models reach ExecuTorch."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_EXECUTORCH
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class ExecuTorchBackend:
    """From the fp32 ONNX model, which becomes a PyTorch module; int8 is PyTorch's own quantization of it."""

    name = "executorch"
    step: Step = COMPILE_EXECUTORCH
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        if "onnx" not in available:
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        return Route(None, None)


EXECUTORCH_BACKEND: Backend = ExecuTorchBackend()
