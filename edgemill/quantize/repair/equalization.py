"""Cross-layer equalization: equal weight ranges of the channels between two layers.

After Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction"
(ICCV 2019), section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemill.quantize.onnx_graph import Editor
from edgemill.quantize.repair.chains import Pair, find_pairs
from edgemill.quantize.repair.linear import Floats
from edgemill.quantize.repair.report import Report
from edgemill.recipe import Repair

CONVERGED = 1e-3
"""Largest |log s| of a sweep over all pairs with which the ranges count as equal."""
_SWEEPS = 100
# Channels with weights this much smaller than the largest of their layer are dead; scaling them up would
# only scale up their bias.
_DEAD = 1e-6
# What the largest activation seen may come near to the limit of a ReLU6.
_HEADROOM = 0.8
# A spread below it is not worth a change.
_EQUAL = 1.001


def equalize(model: onnx.ModelProto, highest: Mapping[str, NDArray[np.float64]] | None = None) -> Report:
    """Equalize a prepared fp32 graph in place; its answers stay what they are.

    For two layers W1, W2 with a positive homogeneous function between them, channel i of W1 is divided by s_i and
    what reads it in W2 multiplied, s_i = sqrt(r1_i r2_i) / r2_i (equation 11), where r1_i and r2_i are the largest
    magnitudes of the weights that make and that read it. All pairs are gone through until no s_i differs from
    1 any more (section 4.1.2). Layers are Conv with any groups, Gemm and MatMul; between them may be ReLU, pooling,
    moves and additions of constants. A pair is left as it is where another node reads what is between,
    where weights are shared, and where channels cannot be followed.

    ReLU6 is not homogeneous. The paper takes plain ReLU instead (section 5.1), which changes the answers of a network
    that makes use of the limit. Here the limit stays. Channels that reach it on calibration samples keep their scale,
    and the others are scaled so that they stay below: the answers on these samples do not change.

    Args:
        model: prepared for quantization, batch normalization folded.
        highest: largest magnitude of every channel of the inputs of Clip nodes (`clip_inputs`), (channels,) by tensor;
            without it pairs with a Clip between are left as they are.

    Returns:
        for every pair: `channels`, `largest_factor` (the larger of s and 1/s), `spread_before` and `spread_after`
        (largest over smallest weight range of the channels that W1 makes). Facts: `sweeps`.
    """
    pairs, left = find_pairs(model)
    work = _Work(model)
    usable: list[_Balance] = []
    for pair in pairs:
        if any(clip.tensor not in (highest or {}) for clip in pair.clips):
            left[pair.first.name] = "a ReLU6 follows it, and the largest values before it are not known"
        else:
            usable.append(_Balance(pair, highest or {}))
    before = [work.spread(balance.pair) for balance in usable]
    sweeps = 0
    while usable and sweeps < _SWEEPS:
        sweeps += 1
        if max(work.step(balance) for balance in usable) < CONVERGED:
            break
    layers: dict[str, dict[str, float | int]] = {}
    for balance, spread in zip(usable, before, strict=True):
        largest = float(np.exp(np.abs(np.log(balance.total)).max(initial=0.0)))
        if largest < _EQUAL:
            left[balance.pair.first.name] = "its channels are equal already"
            continue
        layers[balance.pair.name] = {
            "channels": len(balance.total),
            "largest_factor": largest,
            "spread_before": spread,
            "spread_after": work.spread(balance.pair),
        }
    if layers:
        work.write()
    return Report(Repair.EQUALIZATION, layers, left, {"sweeps": sweeps if layers else 0})


def clip_inputs(model: onnx.ModelProto) -> dict[str, int]:
    """Tensors whose largest values `equalize` wants to know, each with the dimension of its channels."""
    return {clip.tensor: clip.axis for pair in find_pairs(model)[0] for clip in pair.clips}


class _Balance:
    """A pair, the factors that it has got, and the smallest ones that its clips allow."""

    def __init__(self, pair: Pair, highest: Mapping[str, NDArray[np.float64]]) -> None:
        self.pair = pair
        self.total = np.ones(pair.first.outputs)
        self.least = np.zeros(pair.first.outputs)
        self.fixed = np.zeros(pair.first.outputs, bool)
        for clip in pair.clips:
            self.least = np.maximum(self.least, highest[clip.tensor] / (_HEADROOM * clip.limit))
            self.fixed |= highest[clip.tensor] > _HEADROOM * clip.limit

    def allowed(self, by: Floats) -> Floats:
        """The factors nearest to wanted ones."""
        return np.where(self.fixed, 1.0, np.maximum(by, self.least / self.total))


class _Work:
    """Weights and vectors of a graph as float64, so that many small factors do not add up rounding."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.editor = Editor(model)
        self.held: dict[str, Floats] = {}

    def get(self, name: str) -> Floats:
        if name not in self.held:
            self.held[name] = numpy_helper.to_array(self.editor.constants[name]).astype(np.float64)
        return self.held[name]

    def ranges(self, pair: Pair) -> tuple[Floats, Floats]:
        made = pair.first.output_ranges(self.get(pair.first.node.input[1]))
        read = np.zeros_like(made)
        np.maximum.at(read, pair.labels, pair.second.input_ranges(self.get(pair.second.node.input[1])))
        return made, read

    def spread(self, pair: Pair) -> float:
        made = self.ranges(pair)[0]
        alive = made[made > _DEAD * made.max(initial=0.0)]
        return float(alive.max() / alive.min()) if alive.size else 1.0

    def step(self, balance: _Balance) -> float:
        """Equalize a pair; returns the largest |log s|."""
        pair = balance.pair
        made, read = self.ranges(pair)
        alive = (made > _DEAD * made.max(initial=0.0)) & (read > _DEAD * read.max(initial=0.0))
        wanted = np.where(alive, np.sqrt(np.where(alive, made, 1.0) / np.where(alive, read, 1.0)), 1.0)
        by = balance.allowed(wanted) if pair.clips else wanted
        by = np.where(alive, by, 1.0)
        first, second = pair.first.node.input[1], pair.second.node.input[1]
        self.held[first] = pair.first.scale_outputs(self.held[first], 1 / by)
        self.held[second] = pair.second.scale_inputs(self.held[second], by[pair.labels])
        for name in pair.vectors:
            self.held[name] = self.get(name) / by.reshape([-1 if size > 1 else 1 for size in self.get(name).shape])
        balance.total = balance.total * by
        return float(np.abs(np.log(by)).max(initial=0.0))

    def write(self) -> None:
        for name, value in self.held.items():
            tensor = self.editor.constants[name]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
