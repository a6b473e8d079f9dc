"""How channels pass layers without weights. One function a kind: `rule(book, layer, inputs, outputs) -> flows`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemill.channels.atoms import Indices
from edgemill.channels.book import Book, CannotFollowError, Flow, Value, along_last
from edgemill.channels.kernel_rules import ELEMENTWISE, activation_name


def same(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Layers that treat every number alone."""
    return [inputs[0].flow]


def activation(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Activation: elementwise functions only."""
    name = activation_name(layer)
    if name not in ELEMENTWISE:
        raise CannotFollowError(f"the activation {name} of {layer.name} is not known to treat each alone")
    return [inputs[0].flow]


def softmax(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Softmax over other axes."""
    value = inputs[0]
    if value.flow.axis in [int(axis) % len(value.shape) for axis in np.atleast_1d(layer.axis)]:
        raise CannotFollowError(f"{layer.name} (Softmax) sums over them")
    return [value.flow]


def unit_normalization(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """UnitNormalization: a channel that is zero adds nothing to the length."""
    return [inputs[0].flow]


def rescaling(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Rescaling by numbers; a factor for each channel stands in the configuration and stays."""
    if np.size(layer.scale) != 1 or np.size(layer.offset) != 1:
        raise CannotFollowError(f"{layer.name} (Rescaling) has a factor for each in its configuration")
    return [inputs[0].flow]


def spatial(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Pooling, padding, cropping, resizing: each channel alone, on the last axis."""
    if getattr(layer, "data_format", None) == "channels_first":
        raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) has its channels first")
    return [along_last(outputs[0], inputs[0].on_last(layer))]


def merge(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Add, Subtract, Multiply, Average, Maximum, Minimum: channels that meet go together, broadcast ones stay."""
    rank = len(outputs[0].shape)
    axis = inputs[0].flow.axis
    if any(len(value.shape) != rank for value in inputs):
        raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) joins tensors of different ranks")
    if any(value.flow.axis != axis for value in inputs):
        raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) joins them with another axis")
    size = int(outputs[0].shape[axis])
    whole = [value.flow.atoms for value in inputs if value.shape[axis] == size]
    for value in inputs:
        if value.shape[axis] != size:
            book.atoms.freeze(value.flow.atoms, f"{layer.name} ({type(layer).__name__}) spreads it over all channels")
    for other in whole[1:]:
        book.atoms.join(whole[0], other)
    return [Flow(axis, whole[0])]


def concatenate(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Concatenate: along the channels one after the other, along another axis those that meet go together."""
    axis = layer.axis % len(outputs[0].shape)
    mine = inputs[0].flow.axis
    if any(value.flow.axis != mine for value in inputs):
        raise CannotFollowError(f"{layer.name} (Concatenate) joins them with another axis")
    parts = [value.flow.atoms for value in inputs]
    if axis == mine:
        return [Flow(axis, np.concatenate(parts))]
    for other in parts[1:]:
        book.atoms.join(parts[0], other)
    return [Flow(mine, parts[0])]


def permute(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Permute: the channels move to another axis."""
    flow = inputs[0].flow
    return [Flow(list(layer.dims).index(flow.axis) + 1, flow.atoms)]


def repeat(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """RepeatVector: (N, C) to (N, n, C)."""
    return [along_last(outputs[0], inputs[0].on_last(layer))]


def flatten(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Flatten: every channel is at several places."""
    if layer.data_format == "channels_first" and len(inputs[0].shape) > 2:
        raise CannotFollowError(f"{layer.name} (Flatten) has its channels first")
    return [along_last(outputs[0], _spread(inputs[0]).reshape(-1))]


def reshape(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Reshape: channels must come to lie along one axis, else what shares an index there goes together.

    The size of that axis follows in the configuration; `book.outputs` says which channels are left of it.
    """
    spread = _spread(inputs[0]).reshape([int(size) for size in outputs[0].shape[1:]])
    spread = book.atoms.find(spread)
    axes = range(spread.ndim - 1, -1, -1)
    axis = next((axis for axis in axes if _along(spread, axis)), spread.ndim - 1)
    slices = np.moveaxis(spread, axis, 0).reshape(spread.shape[axis], -1)
    for other in slices.T[1:]:
        book.atoms.join(slices[:, 0], other)
    flow = Flow(axis + 1, slices[:, 0].copy())
    book.comes_out(layer, flow)
    return [flow]


def _spread(value: Value) -> Indices:
    """The channel number of every element of a sample."""
    shape = [1] * (len(value.shape) - 1)
    shape[value.flow.axis - 1] = -1
    return np.broadcast_to(value.flow.atoms.reshape(shape), value.shape[1:])


def _along(spread: Indices, axis: int) -> bool:
    """Whether all elements with the same index on an axis are of one channel."""
    slices = np.moveaxis(spread, axis, 0).reshape(spread.shape[axis], -1)
    return bool((slices == slices[:, :1]).all())
