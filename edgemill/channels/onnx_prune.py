"""Step `channels.prune_onnx`: remove channels of a graph that cannot be trained, and repair what read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgemill.channels.book import Role
from edgemill.channels.cost import BytesCost, CostModel, LatencyCost, MacsCost
from edgemill.channels.latency_table import LatencyTable
from edgemill.channels.onnx_graph import OnnxChannels, follow
from edgemill.channels.onnx_importance import Report, by_magnitude, by_variance
from edgemill.channels.onnx_kernels import reading_kernels
from edgemill.channels.onnx_prepare import read_model
from edgemill.channels.onnx_repair import Damaged, repair
from edgemill.channels.onnx_samples import Samples
from edgemill.channels.onnx_steps import PruneOnnxSettings, RepairMethod
from edgemill.channels.onnx_surgery import remove
from edgemill.channels.plan import plan
from edgemill.channels.scores import Scores
from edgemill.data.dataset import Dataset
from edgemill.errors import CheckpointError, RecipeError
from edgemill.ingest.graph import name_free_dimensions, save
from edgemill.recipe.stages import ChannelCost, Importance
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

_JUDGED = 0.4
_SHOWN = 8


def run(settings: PruneOnnxSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Prune an ONNX graph.

    Args:
        settings: how far and by what.
        inputs: `onnx` (fp32), `data`, and `latency` where cost is latency.
        context: seed, folders, progress.

    Returns:
        file `onnx`; facts `cost` (unit, before, after, share), `reached` (whether the share is at most keep),
        `groups` (layers, channels before and after), `whole` (layers, channels, reason), `repair` (by layer the
        share of the variance of its answers that is wrong, before and after), `parameters` (before, after),
        `warnings`.

    Raises:
        RecipeError: an importance that needs gradients; no latency table with cost latency.
        CheckpointError: the file cannot be read, or has no channels that can be removed.
        DataError: there are no samples, or an activation is not finite on one.
        ToolchainError: onnxruntime cannot run the graph.
    """
    _check(settings, inputs)
    model = read_model(inputs["onnx"].path)
    samples = Samples(Dataset(inputs["data"].path), settings.samples, settings.batch_size, context.seed)
    channels = follow(model)
    _require_groups(channels)
    cost = _cost(settings, inputs)

    def judging(fraction: float | None, message: str) -> None:
        context.report(None if fraction is None else _JUDGED * fraction, message)

    scores = judge(channels, settings.importance, samples, judging)
    whole_cost = sum(cost.layer(use.shape) for use in channels.map.uses)
    chosen = plan(channels.map, scores, cost, settings.keep * whole_cost, settings.multiple)
    before = {group.name: group.channels for group in channels.map.groups}
    after = {group.name: int((~chosen.gone[group.atoms]).sum()) * group.unit for group in channels.map.groups}
    whole, damaged = _damaged(channels, chosen.gone)
    pruned = remove(channels, chosen.gone)
    errors: dict[str, dict[str, float]] = {}
    if settings.repair is not RepairMethod.NONE and damaged:

        def repairing(fraction: float | None, message: str) -> None:
            context.report(None if fraction is None else _JUDGED + (1 - _JUDGED) * fraction, message)

        solve = settings.repair is RepairMethod.LEAST_SQUARES
        pruned, errors = repair(whole, pruned, damaged, samples, solve, repairing)
    name_free_dimensions(pruned)
    target = context.out / "model.onnx"
    signature = save(pruned, target)
    share = chosen.after / chosen.before if chosen.before else 1.0
    reached = share <= settings.keep
    facts: dict[str, Any] = {
        "cost": {"unit": cost.unit, "before": chosen.before, "after": chosen.after, "share": share},
        "reached": reached,
        "groups": [
            {"name": group.name, "layers": list(group.layers), "before": before[group.name], "after": after[group.name]}
            for group in channels.map.groups
        ],
        "whole": [
            {"name": group.name, "layers": list(group.layers), "channels": group.channels, "reason": group.reason}
            for group in channels.map.whole
        ],
        "repair": errors,
        "parameters": {"before": _parameters(model), "after": _parameters(pruned)},
        "warnings": []
        if reached
        else [f"keep {settings.keep} cannot be reached with multiples of {settings.multiple}: {share:.3f} is left"],
    }
    return Outputs({"onnx": OutputFile(target, "onnx", signature)}, facts)


def judge(channels: OnnxChannels, importance: Importance, samples: Samples, report: Report) -> Scores:
    """Importance of all atoms, in one unit for all groups."""
    by_l1 = importance is Importance.L1
    values = by_magnitude(channels) if by_l1 else by_variance(channels, samples, report)
    return Scores(values, by_l1, {group.name: importance for group in channels.map.groups})


def _check(settings: PruneOnnxSettings, inputs: Mapping[str, InputFile]) -> None:
    if settings.importance not in (Importance.ACTIVATION, Importance.L1):
        raise RecipeError(
            "This importance of channels cannot be had from an ONNX graph.",
            where="stages.channels.importance",
            expected="activation or l1",
            got=str(settings.importance),
            remedy="set importance: activation, or give a checkpoint that can be trained (Keras)",
        )
    if settings.cost is ChannelCost.LATENCY and "latency" not in inputs:
        raise RecipeError(
            "The cost latency needs a table of measured layers.",
            where="stages.channels.cost",
            remedy="measure one with the step channels.layer_latency, or set cost: macs",
        )


def _cost(settings: PruneOnnxSettings, inputs: Mapping[str, InputFile]) -> CostModel:
    if settings.cost is ChannelCost.LATENCY:
        return LatencyCost(LatencyTable.read(inputs["latency"].path))
    return MacsCost() if settings.cost is ChannelCost.MACS else BytesCost()


def _require_groups(channels: OnnxChannels) -> None:
    if channels.map.groups:
        return
    reasons = [f"{', '.join(group.layers)}: {group.reason}" for group in channels.map.whole]
    raise CheckpointError(
        "The graph has no channels that can be removed.",
        where="stages.channels",
        got="; ".join(reasons[:_SHOWN]) or "no layer with stored weights",
        remedy="leave out stages.channels",
    )


def _damaged(channels: OnnxChannels, gone: NDArray[np.bool_]) -> tuple[onnx.ModelProto, list[Damaged]]:
    """The whole graph, to compare with, and the kernels whose inputs change."""
    whole = onnx.ModelProto()
    whole.CopyFrom(channels.prepared.model)
    writes = {cut.layer.index: cut.atoms for cut in channels.map.cuts if cut.role is Role.WRITES}
    behind: set[str] = set()
    changed = {cut.layer.index for cut in channels.map.cuts if gone[cut.atoms].any()}
    for index, node in enumerate(whole.graph.node):
        if index in changed or behind & set(node.input):
            behind |= set(node.output)
    damaged = []
    for kernel in reading_kernels(channels):
        if whole.graph.node[kernel.index].input[0] in behind:
            damaged.append(Damaged(kernel, np.flatnonzero(~gone[writes[kernel.index]])))
    return whole, damaged


def _parameters(model: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
