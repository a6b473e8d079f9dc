"""How models reach targets that run QNN on the HTP, Qualcomm's NPU."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_QNN
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class QnnBackend:
    """From the ONNX files that are made for onnxruntime.

    Half precision is a matter of an option: the HTP calculates fp32 models in fp16.
    """

    name = "qnn"
    step: Step = COMPILE_QNN
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if scheme is Scheme.FP16 and scheme in target.formats:
            if "onnx" in available:
                return Route(None, None)
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


QNN_BACKEND: Backend = QnnBackend()
