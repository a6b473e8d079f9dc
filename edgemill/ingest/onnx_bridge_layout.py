"""Layouts of tensors while an ONNX graph is rebuilt in Keras.

ONNX computes channels first, Keras channels last. Instead of a transposition around every layer, each
ONNX tensor is remembered as a Keras tensor together with where its axes went; data are only moved where
an operator needs another order. Axes of size 1 that ONNX has and the Keras tensor has not cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.ingest.bridge_layers import CannotBridgeError

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Value:
    """An ONNX tensor as it lies in Keras.

    Attributes:
        tensor: symbolic Keras tensor, batch first.
        axes: for each ONNX axis its axis in `tensor`; None for an axis of size 1 that `tensor` has not.
            Axes of `tensor` that do not occur are of size 1. The batch stays in front: axes[0] is 0.
        flat: ONNX sees it flattened to (N, K), in the order of `axes`.
        indices: ONNX sees it cut to integers.
    """

    tensor: Any
    axes: tuple[int | None, ...]
    flat: bool = False
    indices: bool = False

    @property
    def shape(self) -> Shape:
        """As ONNX sees it; None for the batch and for free sizes."""
        sizes = tuple(self.tensor.shape)
        shape = tuple(1 if axis is None else sizes[axis] for axis in self.axes)
        return (None, product(shape[1:])) if self.flat else shape

    @property
    def rank(self) -> int:
        """Number of ONNX axes, with the batch."""
        return len(self.shape)

    def of(self, tensor: Any) -> Value:
        """The same layout for what an elementwise layer made of the tensor."""
        return replace(self, tensor=tensor)

    def position(self, axis: int) -> int | None:
        """Axis of `tensor` that holds an ONNX axis (may count from the end)."""
        return self.axes[axis % len(self.axes)]

    @property
    def ordered(self) -> bool:
        """Whether the values lie in memory as ONNX has them."""
        solid = [axis for axis in self.axes if axis is not None and self.tensor.shape[axis] != 1]
        return solid == sorted(solid)

    def flat_order(self) -> NDArray[np.int64]:
        """For every place of the flattened ONNX tensor its place in the flattened Keras tensor."""
        places = np.arange(prod(known(self.tensor.shape[1:]))).reshape(self.tensor.shape[1:])
        held = [axis - 1 for axis in self.axes[1:] if axis is not None]
        spare = [axis for axis in range(places.ndim) if axis not in held]
        return places.transpose(*held, *spare).reshape(-1)

    def constant(self, value: NDArray[Any]) -> NDArray[Any] | None:
        """A constant that ONNX broadcasts over this tensor, in the order of the Keras tensor (without batch).

        None where it would make the tensor larger or differs between samples.
        """
        if value.size == 1:
            return value.reshape(())
        while value.ndim and value.shape[0] == 1 and value.ndim > 1:
            value = value[0]
        if self.flat or value.ndim >= self.rank:
            return None
        padded = value.reshape((1,) * (self.rank - value.ndim) + value.shape)
        if any(have not in (1, want) for have, want in zip(padded.shape[1:], self.shape[1:], strict=True)):
            return None
        held = sorted((axis, i) for i, axis in enumerate(self.axes) if axis is not None)
        order = [i for _, i in held]
        spare = [i for i in range(self.rank) if i not in order]
        packed = padded.transpose(*order, *spare)
        shape = [1] * len(self.tensor.shape)
        for size, (axis, _) in zip(packed.shape, held, strict=False):
            shape[axis] = size
        return packed.reshape(shape[1:])

    def as_onnx(self, values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
        """What the Keras tensor holds, in ONNX's order and shape; as it is where that is another number of values."""
        if values.size != np.prod(shape):
            return values
        held = [axis for axis in self.axes if axis is not None]
        spare = [axis for axis in range(values.ndim) if axis not in held]
        return values.transpose(*held, *spare).reshape(shape)


def known(shape: Sequence[int | None]) -> list[int]:
    """Sizes that must all be known.

    Raises:
        CannotBridgeError: one is free.
    """
    if None in shape:
        raise CannotBridgeError(f"works on a free size: {tuple(shape)}")
    return [int(size) for size in shape if size is not None]


def product(shape: Sequence[int | None]) -> int | None:
    """Number of values, None if a size is free."""
    return None if None in shape else prod(int(size) for size in shape if size is not None)


def identity(tensor: Any) -> Value:
    """A Keras tensor whose axes are ONNX's."""
    return Value(tensor, tuple(range(len(tensor.shape))))


def channels_first(tensor: Any) -> Value:
    """A channels-last Keras tensor (N, ..., C) that ONNX sees as (N, C, ...)."""
    rank = len(tensor.shape)
    return Value(tensor, (0, rank - 1, *range(1, rank - 1)))


def channels_last_order(rank: int) -> tuple[int, ...]:
    """ONNX axes of (N, C, ...) in the order (N, ..., C)."""
    return (0, *range(2, rank), 1)


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """`axes` of a tensor whose axis j is the ONNX axis order[j]."""
    return tuple(int(i) for i in np.argsort(order))
