"""Weights that share a few values: weight = scale of its output channel x level, one set of levels for a layer.

The levels lie symmetrically around 0 on the grid k/127, k = -127..127, and every channel has a weight at
level 1 or -1. So a batch normalization folded into the channel, with a factor of either sign, changes
only the scale, and int8 quantization with one step of max|w|/127 per channel, as the LiteRT converter and
onnxruntime do it, finds exactly k: the file holds no more distinct bytes in that layer than there are levels.

Values shared over the whole tensor (Han et al. 2016, "Deep Compression", section 3; tfmot) are lost as soon
as anything scales the channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.recipe import CentroidStart

GRID = 127
"""Steps from 0 to the largest int8 weight."""
MOST_CLUSTERS = 128

_ROUNDS = 60
_OFF_GRID = 0.01
"""Steps by which a weight may miss the grid after float32 arithmetic; others miss it by up to half a step."""


@dataclass(frozen=True)
class Shared:
    """Weights of a layer that share levels.

    Attributes:
        index: signed number of each weight's level, int32 (weights of a channel, output channels); the
            level of a negative number is that of the positive one, negated.
        levels: float32 (n + 1,), increasing from 0 to 1.
        scale: of every channel, float32 (output channels,); 0 for a channel of zeros.
        zero: whether 0 is one of the values, so that a weight may have it.
    """

    index: NDArray[np.int32]
    levels: NDArray[np.float32]
    scale: NDArray[np.float32]
    zero: bool

    @property
    def steps(self) -> NDArray[np.int32]:
        """The weights as int8 files have them, in steps of scale/127; same shape as `index`."""
        on_grid = np.rint(self.levels * GRID).astype(np.int32)
        return on_grid[np.abs(self.index)] * np.sign(self.index)

    @property
    def rows(self) -> NDArray[np.float32]:
        """The weights, float32, same shape as `index`."""
        return self.steps.astype(np.float32) / np.float32(GRID) * self.scale


def to_rows(kernel: NDArray[np.float32], axes: Sequence[int]) -> NDArray[np.float32]:
    """A kernel as (weights of a channel, output channels).

    Args:
        kernel: of any rank.
        axes: that count output channels.
    """
    others = [axis for axis in range(kernel.ndim) if axis not in axes]
    channels = int(np.prod([kernel.shape[axis] for axis in axes]))
    return np.ascontiguousarray(kernel.transpose([*others, *axes])).reshape(-1, channels)


def from_rows(rows: NDArray[np.float32], shape: Sequence[int], axes: Sequence[int]) -> NDArray[np.float32]:
    """Inverse of `to_rows` for a kernel of the given shape."""
    others = [axis for axis in range(len(shape)) if axis not in axes]
    order = [*others, *axes]
    return rows.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))


def fit(
    rows: NDArray[np.float32], clusters: int, start: CentroidStart, generator: np.random.Generator, pruned: bool
) -> Shared:
    """Levels and channel scales near given weights: Lloyd's iterations in turn over assignment, scales and levels.

    Squared differences are taken relative to the channel's scale, because what follows a channel (a
    normalization, its quantizer) is relative to it too.

    Args:
        rows: float32 (weights of a channel, output channels).
        clusters: most different values, 3 to 128. An odd number includes 0. An even one does not, unless
            the weights are pruned: then one value fewer is used, because levels are symmetric.
        start: where the levels begin.
        generator: of k-means++.
        pruned: the zeros among the weights stay zeros.
    """
    weights = rows.astype(np.float64)
    zero = pruned or clusters % 2 == 1
    count = (clusters - 1) // 2 if zero else clusters // 2
    fixed = (rows == 0) if pruned else np.zeros(rows.shape, bool)
    scale = np.abs(weights).max(axis=0)
    relative = np.abs(weights[:, scale > 0]) / scale[scale > 0]
    levels = _start(relative[~fixed[:, scale > 0]], count, start, generator, zero)
    index = nearest(weights, scale, levels, zero, fixed)
    for _ in range(_ROUNDS):
        scale = _scales(weights, index, levels)
        levels = _levels(weights, index, levels, scale)
        before, index = index, nearest(weights, scale, levels, zero, fixed)
        if np.array_equal(before, index):
            break
    levels = np.rint(levels * GRID) / GRID
    index = nearest(weights, scale, levels, zero, fixed)
    scale = _scales(weights, index, levels)
    return Shared(index, levels.astype(np.float32), scale.astype(np.float32), zero)


def nearest(
    rows: NDArray[np.float64],
    scale: NDArray[np.float64],
    levels: NDArray[np.float64],
    zero: bool,
    fixed: NDArray[np.bool_],
) -> NDArray[np.int32]:
    """Signed number of the nearest level; the largest magnitude of a channel always gets the last one.

    Args:
        rows: (weights of a channel, output channels).
        scale: (output channels,).
        levels: increasing from 0 to 1.
        zero: whether level 0 may be used.
        fixed: weights that stay 0.
    """
    size = np.abs(rows)
    borders = (levels[1:] + levels[:-1]) / 2
    if not zero:
        borders[0] = -1.0
    found = np.searchsorted(borders, size / np.where(scale > 0, scale, 1.0), side="right")
    top = size.max(axis=0)
    found = np.where((size == top) & (top > 0), len(levels) - 1, found)
    found[:, top == 0] = 0
    return (np.where(fixed, 0, found) * np.where(rows < 0, -1, 1)).astype(np.int32)


def recognise(rows: NDArray[np.float32]) -> Shared | None:
    """Find the shared levels in weights that have them, None in weights that do not.

    Args:
        rows: float32 (weights of a channel, output channels), after any scaling of channels.
    """
    scale = np.abs(rows.astype(np.float64)).max(axis=0)
    steps = GRID * rows.astype(np.float64) / np.where(scale > 0, scale, 1.0)
    whole = np.rint(steps)
    used = np.unique(np.abs(whole)).astype(int)
    values = np.unique(whole)
    few = len(values) <= min(MOST_CLUSTERS, rows.size // 2)
    if len(rows) == 1 or used[-1] != GRID or not few or np.abs(steps - whole).max() > _OFF_GRID:
        return None
    on_grid = np.concatenate([[0], used[used > 0]])
    index = np.searchsorted(on_grid, np.abs(whole).astype(int)) * np.sign(whole).astype(int)
    levels = (on_grid / GRID).astype(np.float32)
    return Shared(index.astype(np.int32), levels, scale.astype(np.float32), bool(used[0] == 0))


def _start(
    relative: NDArray[np.float64], count: int, start: CentroidStart, generator: np.random.Generator, zero: bool
) -> NDArray[np.float64]:
    """First levels: 0, `count - 1` between, and 1."""
    if start is CentroidStart.LINEAR:
        if zero:
            return np.linspace(0, 1, count + 1)
        return np.concatenate([[0.0], (2 * np.arange(count) + 1) / (2 * count - 1)])
    centres = [0.0, 1.0] if zero else [1.0]
    distance = np.min([(relative - centre) ** 2 for centre in centres], axis=0)
    while len(centres) < count + zero:
        total = distance.sum()
        # All weights lie on centres already: any other level serves.
        chosen = relative[generator.choice(relative.size, p=distance / total)] if total > 0 else generator.random()
        centres.append(float(chosen))
        distance = np.minimum(distance, (relative - chosen) ** 2)
    return np.sort([*centres, *([] if zero else [0.0])])


def _values(index: NDArray[np.int32], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    chosen: NDArray[np.float64] = levels[np.abs(index)] * np.sign(index)
    return chosen


def _scales(rows: NDArray[np.float64], index: NDArray[np.int32], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares of rows - scale * value in every channel."""
    values = _values(index, levels)
    weight = (values**2).sum(axis=0)
    best: NDArray[np.float64] = np.maximum((rows * values).sum(axis=0), 0) / np.where(weight > 0, weight, 1.0)
    return best


def _levels(
    rows: NDArray[np.float64], index: NDArray[np.int32], levels: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean of the relative weights at each level; 0 and 1 stay, a level without weights too."""
    size = rows * np.sign(index) / np.where(scale > 0, scale, 1.0)
    place = np.where(scale > 0, np.abs(index), 0)
    number = np.bincount(place.ravel(), minlength=len(levels))
    means = np.bincount(place.ravel(), weights=size.ravel(), minlength=len(levels)) / np.maximum(number, 1)
    moved = np.clip(np.where(number > 0, means, levels), 1 / GRID, 1.0)
    moved[0], moved[-1] = 0.0, 1.0
    return moved
