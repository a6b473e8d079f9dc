"""How models reach Rockchip's NPUs."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_RKNN
from edgemill.compile.onnxruntime_routes import ONNXRUNTIME_BACKEND
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.recipe import Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target

OWN = (Scheme.FP16, Scheme.INT8_STATIC)
"""Formats that RKNN makes itself of the fp32 model, int8 from the calibration samples."""


class RknnBackend:
    """RKNN takes ONNX: fp32, which it quantizes itself, or with the QDQ pairs of a model that was trained so."""

    name = "rknn"
    step: Step = COMPILE_RKNN
    probed = False

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        if scheme not in OWN:
            return ONNXRUNTIME_BACKEND.route(scheme, available, target, recipe)
        if "onnx" not in available:
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        return Route(None, None)


RKNN_BACKEND: Backend = RknnBackend()
