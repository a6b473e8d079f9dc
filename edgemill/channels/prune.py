"""Step `channels.prune`: remove channels round by round, with training on the checkpoint's answers after each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from edgemill.artifact import canonical_json, digest_text
from edgemill.channels import CHANNELS, ChannelsSettings
from edgemill.channels.cost import BytesCost, CostModel, LatencyCost, MacsCost
from edgemill.channels.groups import ChannelMap, Group, find_groups
from edgemill.channels.latency_table import LatencyTable
from edgemill.channels.plan import Costs, least_cost, sizes_of
from edgemill.channels.rounds import Rounds, load
from edgemill.channels.trace import trace
from edgemill.data.dataset import Dataset
from edgemill.errors import CheckpointError, RecipeError
from edgemill.ingest.count import count
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.recipe import ChannelCost
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh
from edgemill.train.tuning import tuning_objective


def run(settings: ChannelsSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Remove channels of a model until a share of its cost is left.

    Args:
        settings: the recipe's, and the task.
        inputs: `keras` (the model), `teacher` (onnx of the checkpoint), `data` (dataset); `latency` (JSON latency
            table of all its layers) where cost is latency; `answers` (optional, of `distill.answers`).
        context: where to write. A finished round is kept in `context.resume`, and so is the last epoch of an
            unfinished one.

    Returns:
        files `keras` and `onnx`; facts `groups` (name, layers that write it, layers that read it, channels before and
        after), `left_whole` (the same with a reason), `importance` (by group), `cost` (before, after, unit),
        `macs`, `macs_before`, `bytes`, `bytes_before` (int8 weights and biases of layers with a kernel),
        `parameters`, `parameters_before`, `score`, `score_before` (validation), `history` (one record a round).

    Raises:
        CheckpointError: nothing, or not enough, can be removed.
        RecipeError: cost is latency, but there is no latency table.
        QualityGateError: training diverged.
    """
    fresh(context.seed)
    data = Dataset(inputs["data"].path)
    cost = _cost(settings, inputs)
    model = load(inputs["keras"].path)
    before = find_groups(trace(model, data.sample_shape))
    _check(before, cost, settings)
    sizes = {"macs_before": _macs(model, data, context.out), "bytes_before": _total(before, BytesCost())}
    parameters = int(model.count_params())
    identity = digest_text(
        canonical_json(
            [
                CHANNELS.version,
                settings.model_dump(mode="json"),
                context.seed,
                {name: item.artifact.digest for name, item in sorted(inputs.items())},
            ]
        )
    )
    rounds = Rounds(settings, data, tuning_objective(settings, settings.task, inputs), cost, context, identity)
    result, history = rounds.go(inputs["keras"].path, _total(before, cost))
    context.report(1.0, "exporting the model")
    pruned = load(result)
    after = find_groups(trace(pruned, data.sample_shape))
    save_keras(pruned, context.out / "model.keras")
    signature = keras_to_onnx(pruned, context.out / "model.onnx")
    left = {group.name: group.channels for group in after.groups}
    facts: dict[str, Any] = {
        "groups": [_record(group) | {"after": left[group.name]} for group in before.groups],
        "left_whole": [_record(group) | {"reason": group.reason} for group in before.whole],
        "importance": history[0]["importance"],
        "cost": {"before": _total(before, cost), "after": _total(after, cost), "unit": cost.unit},
        "macs": _counted(context.out / "model.onnx", data),
        "bytes": _total(after, BytesCost()),
        "parameters": int(pruned.count_params()),
        "parameters_before": parameters,
        "score": history[-1]["score"],
        "score_before": history[0]["score_before"],
        "history": history,
    } | sizes
    files = {
        "keras": OutputFile(context.out / "model.keras", "keras"),
        "onnx": OutputFile(context.out / "model.onnx", "onnx", signature),
    }
    return Outputs(files, facts)


def _cost(settings: ChannelsSettings, inputs: Mapping[str, InputFile]) -> CostModel:
    if settings.cost is ChannelCost.MACS:
        return MacsCost()
    if settings.cost is ChannelCost.BYTES:
        return BytesCost()
    if "latency" not in inputs:
        raise RecipeError(
            "There is no latency table of the model's layers.",
            where="stages.channels.cost",
            got=str(settings.cost),
            remedy="use cost: macs, or measure the layers first",
        )
    return LatencyCost(LatencyTable.read(inputs["latency"].path))


def _check(channels: ChannelMap, cost: CostModel, settings: ChannelsSettings) -> None:
    """Refuse, before any training, what cannot be reached."""
    whole = "; ".join(f"{group.name}: {group.reason}" for group in channels.whole)
    if not channels.groups:
        raise CheckpointError(
            "The model has no channels that can be removed.",
            where="stages.channels",
            got=whole or "no layer with a kernel",
            remedy="leave out stages.channels",
        )
    now, least = _total(channels, cost), least_cost(channels, cost, settings.multiple)
    if least > settings.keep * now:
        raise CheckpointError(
            "The model cannot be brought to so little by removing channels.",
            where="stages.channels.keep",
            expected=f"at most {settings.keep} of {now:.6g} {cost.unit}",
            got=f"at least {least / now:.3f} of them with {settings.multiple} channels in every group"
            + (f"; left whole: {whole}" if whole else ""),
            remedy="raise keep, lower multiple, or leave out stages.channels",
        )


def _total(channels: ChannelMap, cost: CostModel) -> float:
    return Costs(channels, cost).total(sizes_of(channels))


def _macs(model: Any, data: Dataset, folder: Path) -> int:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        keras_to_onnx(model, Path(name) / "before.onnx")
        return _counted(Path(name) / "before.onnx", data)


def _counted(path: Path, data: Dataset) -> int:
    return count(onnx.load(str(path)), data.sample_shape).macs


def _record(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "layers": list(group.layers),
        "readers": list(group.readers),
        "channels": group.channels,
    }
