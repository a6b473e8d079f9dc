"""How models reach microcontrollers that run TensorFlow Lite Micro."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_TFLM
from edgemill.compile.litert_routes import LITERT_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target


class TflmBackend:
    """From the same full-integer TFLite files as LiteRT."""

    name = "tflite-micro"
    step: Step = COMPILE_TFLM
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if scheme is Scheme.INT8_DYNAMIC:
            return Refusal(
                f"{target.name} does not run {scheme}: TensorFlow Lite Micro has no hybrid kernels, and refuses int8 "
                "weights beside float activations",
                "choose int8_static, or int8_qat where that loses too much",
            )
        return LITERT_BACKEND.route(scheme, available, target, recipe)


TFLM_BACKEND: Backend = TflmBackend()
