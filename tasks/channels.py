"""Stage: remove whole channels, by what that saves in multiplications, bytes or measured time."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.benchmark.host import fingerprint_digest
from edgemill.candidate import Model
from edgemill.channels import CHANNELS, ChannelsSettings
from edgemill.channels.cost import LayerShape
from edgemill.channels.latency_steps import (
    GEOMETRY,
    LAYER_LATENCY,
    GeometrySettings,
    LayerLatencySettings,
    measuring_plan,
)
from edgemill.channels.onnx_steps import GEOMETRY_ONNX, PRUNE_ONNX, PruneOnnxSettings
from edgemill.execute import Call
from edgemill.recipe import ChannelCost, Channels, Recipe
from edgemill.store import StepRecord
from edgemill.targets import load_target
from tasks.answers import teacher_answers
from tasks.run import perform


def prune_channels(recipe: Recipe, settings: Channels, model: Model, teacher: Model, data: Artifact) -> StepRecord:
    """Prune channels: of a Keras model with training, of one that cannot be trained without.

    Args:
        teacher: the ingested checkpoint.
    """
    latency = {}
    if settings.cost is ChannelCost.LATENCY:
        latency["latency"] = _latency_table(recipe, model, data)
    if "keras" in model.files:
        inputs = {"keras": model.files["keras"], "teacher": teacher.files["onnx"], "data": data, **latency}
        if settings.distill:
            inputs |= teacher_answers(recipe, settings.augment, teacher.files["onnx"], data)
        trained = ChannelsSettings(**settings.model_dump(), task=recipe.task)
        return perform(Call(CHANNELS, trained, inputs, seed=recipe.seed), model.name)
    told = settings.model_fields_set & {"importance"}
    untrained = PruneOnnxSettings(
        keep=settings.keep,
        cost=settings.cost,
        multiple=settings.multiple,
        **{name: getattr(settings, name) for name in told},
    )
    inputs = {"onnx": model.files["onnx"], "data": data, **latency}
    return perform(Call(PRUNE_ONNX, untrained, inputs, seed=recipe.seed), model.name)


def _latency_table(recipe: Recipe, model: Model, data: Artifact) -> Artifact:
    """Times of the model's layers at lower channel counts, on this machine, in the runtime of the first target."""
    target = load_target(recipe.targets[0])
    if "keras" in model.files:
        call = Call(GEOMETRY, GeometrySettings(), {"keras": model.files["keras"], "data": data})
    else:
        call = Call(GEOMETRY_ONNX, GeometrySettings(), {"onnx": model.files["onnx"]})
    listed = perform(call, model.name)
    settings = LayerLatencySettings(
        runtime=target.runtime.name,
        int8=target.int8,
        layers=measuring_plan(LayerShape(**layer) for layer in listed.facts["layers"]),
        threads=recipe.benchmark.threads,
    )
    call = Call(LAYER_LATENCY, settings, {}, seed=recipe.seed, extra={"host": fingerprint_digest()})
    return perform(call, f"{model.name} -> {target.name}").outputs["table"]
