"""How models reach targets that run onnxruntime."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_ORT
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.quantize import (
    DYNAMIC,
    FP16,
    MIXED,
    QAT,
    STATIC,
    DynamicSettings,
    Fp16Settings,
    MixedSettings,
    QatSettings,
    StaticSettings,
)
from edgemill.quantize.mixed.wider import lacks, wider_formats
from edgemill.recipe import Granularity, Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import ActivationType, Target


class OnnxRuntimeBackend:
    """ONNX in, ONNX out; every model is at hand as fp32 ONNX."""

    name = "onnxruntime"
    step: Step = COMPILE_ORT
    probed = True

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return refusal
        if scheme is Scheme.INT8_QAT:
            return _qat(available, target, recipe)
        if "onnx" not in available:
            return Refusal("the model is not at hand as ONNX", "give a checkpoint that can be exported to ONNX")
        if scheme is Scheme.INT8_MIXED:
            return _mixed(target, recipe)
        return _without_training(scheme, target, recipe)


def _without_training(scheme: Scheme | None, target: Target, recipe: Recipe) -> Route:
    if scheme is Scheme.INT8_STATIC:
        return Route(STATIC, _static(target, recipe), {"onnx": "onnx", "data": "data"})
    if scheme is Scheme.INT8_DYNAMIC:
        settings = DynamicSettings(int8=target.int8, granularity=_granularity(target, recipe))
        return Route(DYNAMIC, settings, {"onnx": "onnx"})
    if scheme is Scheme.FP16:
        return Route(FP16, Fp16Settings(), {"onnx": "onnx", "data": "data"})
    return Route(None, None)


def _static(target: Target, recipe: Recipe) -> StaticSettings:
    rules = recipe.stages.quantize
    return StaticSettings(
        int8=target.int8,
        calibration=rules.calibration,
        percentile=rules.percentile,
        calibration_memory_bytes=rules.calibration_memory_bytes,
        granularity=_granularity(target, recipe),
        repair=rules.repair,
    )


def _granularity(target: Target, recipe: Recipe) -> Granularity:
    return recipe.stages.quantize.granularity if target.int8.per_channel else Granularity.PER_TENSOR


def _mixed(target: Target, recipe: Recipe) -> Route | Refusal:
    rules = recipe.stages.quantize.mixed
    if (reason := lacks(target, rules.wider)) is not None:
        return Refusal(reason, "leave stages.quantize.mixed.wider out: then what the target has is used")
    settings = MixedSettings(
        **dict(_static(target, recipe)),
        task=recipe.task,
        budget=recipe.budget,
        gates=recipe.gates,
        wider=wider_formats(target, rules.wider),
        int4_weights=rules.int4_weights,
        evaluations=rules.evaluations,
    )
    return Route(MIXED, settings, {"onnx": "onnx", "data": "data", "checkpoint": "teacher"})


def _qat(available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
    if "keras" not in available:
        return Refusal(
            "quantization-aware training needs a model that can be trained, and this checkpoint is inference-only",
            "use int8_static, give a Keras checkpoint, or add a distill stage",
        )
    if target.int8.reduce_range:
        return Refusal(
            "its weights are trained on 8 bits, which overflow in this target's 16-bit sums (no VNNI)",
            "use int8_static, which takes 7-bit weights for this target",
        )
    inputs = {"keras": "keras", "data": "data"}
    if recipe.stages.quantize.qat.distill:
        inputs["teacher"] = "teacher"
    output = "onnx_uint8" if target.int8.activations is ActivationType.UINT8 else "onnx_int8"
    return Route(QAT, QatSettings(task=recipe.task, training=recipe.stages.quantize.qat), inputs, output)


ONNXRUNTIME_BACKEND: Backend = OnnxRuntimeBackend()
