"""How much a channel of a graph that cannot be trained is worth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgemill.channels.book import Role
from edgemill.channels.onnx_graph import OnnxChannels
from edgemill.channels.onnx_kernels import Kernel, matrix_of, patches, reading_kernels
from edgemill.channels.onnx_samples import Inside, Samples

Numbers = NDArray[np.float64]
Report = Callable[[float | None, str], None]

_ROWS = 20_000
"""Output positions of a layer that are looked at, over all samples."""


def by_magnitude(channels: OnnxChannels) -> Numbers:
    """Sum of the magnitudes of the weights that make a channel, by the mean of its layer (Li et al. 2017).

    Returns:
        float64 (all channels,), at the atoms' numbers; summed over the layers that make a channel together.
    """
    total = np.zeros(channels.map.book.atoms.count)
    for cut in channels.map.cuts:
        if cut.role not in (Role.WRITES, Role.FILTERS):
            continue
        node = channels.prepared.graph.node[cut.layer.index]
        value = np.abs(channels.prepared.value(node.input[int(cut.attribute)]).astype(np.float64))
        sums = np.moveaxis(value, cut.axis, 0).reshape(value.shape[cut.axis], -1).sum(axis=1)
        mean = sums.mean()
        if mean > 0:
            np.add.at(total, cut.atoms, sums / mean)
    return total


def by_variance(channels: OnnxChannels, samples: Samples, report: Report) -> Numbers:
    """What the layers that read a channel answer otherwise when it is replaced by its mean.

    For a kernel W and the patches x of a channel under it this is the trace of W Cov(x) W^T, as a share of the
    same for all channels of the layer: the part of the variance of the layer's answers that is lost when the
    channel goes and its mean moves into the bias (the criterion of Evci, Le Roux, Castro and Bottou 2018,
    "Mean replacement pruning", taken at the next layer's answers as in ThiNet, Luo et al. 2017).

    Returns:
        float64 (all channels,), at the atoms' numbers; summed over the layers that read a channel.
    """
    kernels = reading_kernels(channels)
    graph = channels.prepared.graph
    inside = Inside(channels.prepared.model, [graph.node[kernel.index].input[0] for kernel in kernels])
    moments = [_Blocks(channels, kernel) for kernel in kernels]
    random = np.random.default_rng(0)
    done = 0
    for x in samples.batches():
        tensors = inside(x)
        for moment in moments:
            moment.add(tensors, max(1, _ROWS // samples.count), random)
        done += len(x)
        report(done / samples.count, f"judging channels on sample {done} of {samples.count}")
    total = np.zeros(channels.map.book.atoms.count)
    reads = {cut.layer.index: cut for cut in channels.map.cuts if cut.role is Role.READS}
    for moment in moments:
        lost = moment.lost()
        if lost.sum() > 0:
            np.add.at(total, reads[moment.kernel.index].atoms, lost / lost.sum())
    return total


class _Blocks:
    """Covariance of the patches under a kernel, within each input channel."""

    def __init__(self, channels: OnnxChannels, kernel: Kernel) -> None:
        self.kernel = kernel
        self._node = channels.prepared.graph.node[kernel.index]
        self._outputs = channels.prepared.shapes[self._node.output[0]] or ()
        self._taps = kernel.size[0] * kernel.size[1]
        matrix = matrix_of(channels.prepared, kernel)
        self._weights = matrix.reshape(len(matrix), -1, self._taps).transpose(1, 0, 2)
        inputs = len(self._weights)
        self._count = 0
        self._sum = np.zeros((inputs, self._taps))
        self._squares = np.zeros((inputs, self._taps, self._taps))

    def add(self, tensors: dict[str, NDArray[np.float32]], most: int, random: np.random.Generator) -> None:
        """Look at `most` output positions of every sample."""
        rows = patches(self._node, self.kernel, tensors[self._node.input[0]], self._outputs)
        if rows.shape[1] > most:
            rows = rows[:, random.choice(rows.shape[1], most, replace=False)]
        flat = rows.reshape(-1, len(self._weights), self._taps).transpose(1, 0, 2).astype(np.float64)
        self._count += flat.shape[1]
        self._sum += flat.sum(axis=1)
        self._squares += flat.transpose(0, 2, 1) @ flat

    def lost(self) -> Numbers:
        """Variance of the answers that each input channel makes, float64 (inputs,)."""
        mean = self._sum / self._count
        covariance = self._squares / self._count - mean[:, :, None] * mean[:, None, :]
        made: Numbers = np.maximum(((self._weights @ covariance) * self._weights).sum(axis=(1, 2)), 0.0)
        return made
