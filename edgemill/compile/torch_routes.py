"""How models reach targets whose files are made from a PyTorch twin of the fp32 ONNX model."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from edgemill.compile import COMPILE_COREML, COMPILE_EXECUTORCH
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


@dataclass
class TorchBackend:
    """From the fp32 ONNX model in every number format: the compile step itself rounds or quantizes."""

    name: str
    step: Step
    probed: bool = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        if "onnx" not in available:
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        return Route(None, None)


COREML_BACKEND: Backend = TorchBackend("coreml", COMPILE_COREML)
EXECUTORCH_BACKEND: Backend = TorchBackend("executorch", COMPILE_EXECUTORCH)
