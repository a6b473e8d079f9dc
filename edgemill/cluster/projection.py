"""Training of shared weights: a projection of the kernels after every update.

Every kernel has a hidden copy with a value for each weight. An update of the kernel is added to the copy,
and the kernel becomes the copy's projection on shared levels (Cardinaux et al. 2018, "Iteratively training
look-up tables for network quantization", algorithm 1). The update of a level is thereby the *mean* of the
updates of its weights. tfmot has their sum as a gradient, hundreds of times a weight's own, with which plain
SGD collapses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.cluster.codebook import GRID, Shared, from_rows, to_rows
from edgemill.tf import tf

MOVING = 0.6
"""Share of the updates in which a weight may change its level; the rest trains levels, scales and all else."""


@dataclass(frozen=True)
class Place:
    """A kernel whose weights share levels.

    Attributes:
        name: of its layer.
        owner: layer or wrapper that is part of the trained model; holds the projection's variables, so
            that they are in the snapshots of the training.
        kernel: variable.
        axes: of the kernel that count output channels.
        shared: its first levels.
        fixed: weights that stay 0, bool, shape of `shared.index`.
    """

    name: str
    owner: Any
    kernel: Any
    axes: tuple[int, ...]
    shared: Shared
    fixed: NDArray[np.bool_]


class Projection:
    """Keeps kernels on their levels.

    Args:
        places: the kernels; each is set to its shared values at once.
        moving: so many updates long weights may change to a nearer level; then only the levels and
            the channels' scales are trained.
    """

    def __init__(self, places: Sequence[Place], moving: int) -> None:
        self.places = tuple(places)
        self._moving = moving
        self._kernels = [_Kernel(place) for place in places]
        self._updates = places[0].owner.add_weight(
            "cluster_updates", shape=(), dtype=tf.int32, initializer="zeros", trainable=False
        )

    def after_step(self) -> None:
        """Project; called by the training loop after every update, inside its compiled step."""
        moving = self._updates < self._moving
        for kernel in self._kernels:
            kernel.project(moving)
        self._updates.assign_add(1)

    def shared(self) -> list[Shared]:
        """What the kernels hold now, in the order of `places`."""
        return [kernel.read() for kernel in self._kernels]


class _Kernel:
    def __init__(self, place: Place) -> None:
        shared = place.shared
        self.kernel, self.shape, self.axes = place.kernel, tuple(place.kernel.shape), place.axes
        others = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        self.order = [*others, *self.axes]
        self.last, self.zero = len(shared.levels) - 1, shared.zero
        self.fixed = tf.constant(place.fixed)

        def variable(name: str, value: Any) -> Any:
            made = place.owner.add_weight(
                f"cluster_{name}", shape=value.shape, dtype=value.dtype.name, initializer="zeros", trainable=False
            )
            made.assign(value)
            return made

        self.hidden = variable("hidden", to_rows(self.kernel.numpy(), self.axes))
        self.shown = variable("shown", shared.rows)
        self.index = variable("index", shared.index)
        self.levels = variable("levels", shared.levels)
        self.scale = variable("scale", shared.scale)
        self.kernel.assign(from_rows(shared.rows, self.shape, self.axes))

    def read(self) -> Shared:
        """The shared weights as they are now."""
        levels = np.rint(self.levels.numpy() * GRID).astype(np.float32) / np.float32(GRID)
        return Shared(self.index.numpy(), levels, self.scale.numpy(), self.zero)

    def project(self, moving: Any) -> None:
        """Take the update over into the hidden weights and show their projection."""
        rows = tf.reshape(tf.transpose(self.kernel, self.order), self.shown.shape)
        hidden = self.hidden.assign_add(rows - self.shown)
        index = self.index.assign(tf.where(moving, self._nearest(hidden), self.index))
        # Scales before levels, so that a factor on a channel stays in its scale.
        scale = _scales(hidden, self._values(index))
        self.levels.assign(self._moved(hidden, index, scale))
        values = self._values(index)
        scale = self.scale.assign(_scales(hidden, values))
        shown = self.shown.assign(values * scale)
        ordered = tf.reshape(shown, [self.shape[axis] for axis in self.order])
        self.kernel.assign(tf.transpose(ordered, [self.order.index(axis) for axis in range(len(self.shape))]))

    def _nearest(self, hidden: Any) -> Any:
        size = tf.abs(hidden)
        relative = tf.math.divide_no_nan(size, self.scale)
        borders = (self.levels[1:] + self.levels[:-1]) / 2
        if not self.zero:
            borders = tf.concat([[-1.0], borders[1:]], axis=0)
        found = tf.reshape(tf.searchsorted(borders, tf.reshape(relative, [-1]), side="right"), hidden.shape)
        top = tf.reduce_max(size, axis=0)
        found = tf.where((size == top) & (top > 0), self.last, found)
        return tf.where(self.fixed | (top == 0), 0, found) * tf.where(hidden < 0, -1, 1)

    def _values(self, index: Any) -> Any:
        return tf.gather(tf.round(self.levels * GRID) / GRID, tf.abs(index)) * tf.cast(tf.sign(index), tf.float32)

    def _moved(self, hidden: Any, index: Any, scale: Any) -> Any:
        """Mean of the relative weights at each level; 0 and 1 stay, a level without weights too."""
        size = tf.math.divide_no_nan(hidden * tf.cast(tf.sign(index), tf.float32), scale)
        place = tf.reshape(tf.where(scale > 0, tf.abs(index), 0), [-1])
        number = tf.math.bincount(place, minlength=self.last + 1, maxlength=self.last + 1, dtype=tf.float32)
        total = tf.math.unsorted_segment_sum(tf.reshape(size, [-1]), place, self.last + 1)
        means = tf.where(number > 0, tf.math.divide_no_nan(total, number), self.levels)
        between = tf.clip_by_value(means[1:-1], 1 / GRID, 1.0)
        return tf.concat([[0.0], between, [1.0]], axis=0)


def _scales(hidden: Any, values: Any) -> Any:
    """Least squares of hidden - scale * value in every channel."""
    product = tf.maximum(tf.reduce_sum(hidden * values, axis=0), 0.0)
    return tf.math.divide_no_nan(product, tf.reduce_sum(values**2, axis=0))
