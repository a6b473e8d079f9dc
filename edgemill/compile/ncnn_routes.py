"""How models reach targets that run ncnn."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_NCNN
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class NcnnBackend:
    """From the fp32 ONNX file; half precision is a matter of converting, which rounds the weights.

    Quantized graphs do not get there: pnnx (20261020) leaves QuantizeLinear and DequantizeLinear unconverted.
    """

    name = "ncnn"
    step: Step = COMPILE_NCNN
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if scheme not in (None, Scheme.FP16):
            return Refusal(
                f"{scheme} is a graph with QuantizeLinear and DequantizeLinear, which ncnn's converter does not know",
                "choose among fp32, fp16",
            )
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        return ONNXRUNTIME_BACKEND.route(None, available, target, recipe)


NCNN_BACKEND: Backend = NcnnBackend()
