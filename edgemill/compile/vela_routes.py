"""How models reach Arm Ethos-U NPUs."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_VELA
from edgemill.compile.litert_routes import LITERT_BACKEND
from edgemill.compile.route import Backend, Refusal, Route
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target

_FLOAT = {None: "fp32", Scheme.FP16: "fp16", Scheme.INT8_DYNAMIC: "int8_dynamic"}


class VelaBackend:
    """From the same full-integer TFLite files as LiteRT."""

    name = "vela"
    step: Step = COMPILE_VELA
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if scheme in _FLOAT:
            return Refusal(
                f"{target.name} does not run {_FLOAT[scheme]}: an Ethos-U calculates with integers only, and Vela "
                "leaves every operator whose activations are floating-point numbers to the CPU",
                "choose int8_static, or int8_qat where that loses too much",
            )
        return LITERT_BACKEND.route(scheme, available, target, recipe)


VELA_BACKEND: Backend = VelaBackend()
