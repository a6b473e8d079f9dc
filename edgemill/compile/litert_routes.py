"""How models reach targets that run LiteRT."""

from __future__ import annotations

from collections.abc import Set

from edgemill.compile import COMPILE_LITERT
from edgemill.compile.route import Backend, Refusal, Route, unsupported
from edgemill.quantize import LITERT, QAT, LitertScheme, LitertSettings, QatSettings
from edgemill.recipe import Granularity, Recipe, Scheme
from edgemill.step import Step
from edgemill.targets.spec import Target

_SOURCES = ("keras", "saved_model")
_MIXED = Refusal(
    "int8_mixed is for onnxruntime: TensorFlow's converter keeps no single operators float in a full-integer file, "
    "and LiteRT's int16 activations are 30 times slower than int8 on the CPU",
    "choose int8_qat, which trains what int8_static loses, or fp16",
)


class LiteRtBackend:
    """TFLite files, converted from Keras or a SavedModel in the number format that is wanted."""

    name = "litert"
    step: Step = COMPILE_LITERT
    probed = True

    def route(self, scheme: Scheme | None, available: Set[str], target: Target, recipe: Recipe) -> Route | Refusal:
        """See `Backend.route`."""
        if (refusal := unsupported(scheme, target)) is not None:
            return _MIXED if scheme is Scheme.INT8_MIXED else refusal
        if scheme is None and "tflite" in available:
            return Route(None, None, output="tflite")
        source = next((form for form in _SOURCES if form in available), None)
        if source is None:
            return Refusal(
                "LiteRT files are converted from Keras or a SavedModel, and this model is at hand only as "
                + ", ".join(sorted(available & {"onnx", "tflite"})),
                "give the Keras or SavedModel checkpoint, or add a distill stage with a student family",
            )
        if scheme is Scheme.INT8_QAT:
            return _qat(available, recipe)
        rules = recipe.stages.quantize
        settings = LitertSettings(
            scheme=LitertScheme.FP32 if scheme is None else LitertScheme(scheme.value),
            granularity=rules.granularity if target.int8.per_channel else Granularity.PER_TENSOR,
        )
        inputs = {source: source}
        if scheme is Scheme.INT8_STATIC:
            inputs["data"] = "data"
        return Route(LITERT, settings, inputs, "tflite")


def _qat(available: Set[str], recipe: Recipe) -> Route | Refusal:
    if "keras" not in available:
        return Refusal(
            "quantization-aware training needs a model that can be trained, and this checkpoint is inference-only",
            "use int8_static, give a Keras checkpoint, or add a distill stage",
        )
    inputs = {"keras": "keras", "data": "data"}
    if recipe.stages.quantize.qat.distill:
        inputs["teacher"] = "teacher"
    return Route(QAT, QatSettings(task=recipe.task, training=recipe.stages.quantize.qat), inputs, "tflite")


LITERT_BACKEND: Backend = LiteRtBackend()
