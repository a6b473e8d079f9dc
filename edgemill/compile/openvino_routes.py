"""How models reach targets that run OpenVINO."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_OPENVINO
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class OpenVinoBackend:
    """From the same ONNX files as onnxruntime: quantized with QDQ pairs, which OpenVINO turns into int8 products.

    Half precision is a matter of saving: OpenVINO itself rounds the weights of the fp32 model.
    """

    name = "openvino"
    step: Step = COMPILE_OPENVINO
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if scheme is Scheme.FP16 and scheme in target.formats:
            return ONNXRUNTIME_BACKEND.route(None, available, target, recipe)
        return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)


OPENVINO_BACKEND: Backend = OpenVinoBackend()
