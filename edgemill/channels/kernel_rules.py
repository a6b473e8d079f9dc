"""How channels pass layers with weights. One function a kind: `rule(book, layer, inputs, outputs) -> flows`."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemill.channels.atoms import Indices
from edgemill.channels.book import Book, CannotFollowError, Flow, Role, Use, Value, along_last
from edgemill.channels.geometry import shapes_of

# f(channel), nothing of the other channels.
ELEMENTWISE = frozenset(
    {
        "elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu", "relu6", "selu",
        "sigmoid", "silu", "softplus", "softsign", "swish", "tanh",
    }
)  # fmt: skip


def activation_name(layer: Any) -> str:
    """Name of a layer's activation function."""
    function = getattr(layer, "activation", None)
    return getattr(function, "__name__", "linear" if function is None else type(function).__name__)


def convolution(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Conv1D, Conv2D, with groups too: of those, whole groups go."""
    before = _channels_last(layer, inputs[0])
    rank = len(layer.kernel.shape)
    after = book.written(layer, "kernel", rank - 1)
    if layer.groups == 1:
        book.cut(layer, "kernel", rank - 2, Role.READS, before)
    else:
        for some in zip(np.split(before, layer.groups), np.split(after, layer.groups), strict=True):
            book.atoms.join_all(np.concatenate(some))
    _use(book, layer, inputs[0], (before, after))
    return _answer(book, layer, after, outputs)


def transposed(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Conv1DTranspose, Conv2DTranspose."""
    before = _channels_last(layer, inputs[0])
    rank = len(layer.kernel.shape)
    after = book.written(layer, "kernel", rank - 2)
    book.cut(layer, "kernel", rank - 1, Role.READS, before)
    _use(book, layer, inputs[0], (before, after))
    return _answer(book, layer, after, outputs)


def depthwise(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """DepthwiseConv1D, DepthwiseConv2D: channel c gives the channels c * multiplier and following."""
    before = _channels_last(layer, inputs[0])
    book.cut(layer, "depthwise_kernel", len(layer.depthwise_kernel.shape) - 2, Role.FILTERS, before)
    after = np.repeat(before, layer.depth_multiplier)
    _use(book, layer, inputs[0], (before, after))
    return _answer(book, layer, after, outputs)


def separable(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """SeparableConv1D, SeparableConv2D: depthwise, then pointwise."""
    before = _channels_last(layer, inputs[0])
    rank = len(layer.depthwise_kernel.shape)
    book.cut(layer, "depthwise_kernel", rank - 2, Role.FILTERS, before)
    middle = np.repeat(before, layer.depth_multiplier)
    book.cut(layer, "pointwise_kernel", rank - 2, Role.READS, middle)
    after = book.written(layer, "pointwise_kernel", rank - 1)
    _use(book, layer, inputs[0], (before, middle), (middle, after))
    return _answer(book, layer, after, outputs)


def dense(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Dense, on the last axis of anything; after Flatten every channel has several inputs."""
    before = inputs[0].on_last(layer)
    after = book.written(layer, "kernel", 1)
    book.cut(layer, "kernel", 0, Role.READS, before)
    _use(book, layer, inputs[0], (before, after))
    return _answer(book, layer, after, outputs)


def embedding(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """Embedding: writes channels, reads numbers."""
    book.atoms.freeze(inputs[0].flow.atoms, f"{layer.name} (Embedding) reads numbers")
    flow = along_last(outputs[0], book.written(layer, "embeddings", 1))
    book.comes_out(layer, flow)
    return [flow]


def batch_normalization(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """BatchNormalization: every channel has a factor, an offset and two statistics."""
    flow = inputs[0].flow
    if list(np.atleast_1d(layer.axis) % len(inputs[0].shape)) != [flow.axis]:
        raise CannotFollowError(f"{layer.name} (BatchNormalization) takes its statistics across them")
    book.cut(layer, "gamma", 0, Role.NORMALIZES, flow.atoms)
    for attribute in ("beta", "moving_mean", "moving_variance"):
        book.cut(layer, attribute, 0, Role.FOLLOWS, flow.atoms)
    return [flow]


def layer_normalization(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """LayerNormalization over other axes; over the channels, one less would change all others."""
    value = inputs[0]
    axes = [int(axis) % len(value.shape) for axis in np.atleast_1d(layer.axis)]
    if value.flow.axis in axes:
        raise CannotFollowError(f"{layer.name} (LayerNormalization) takes its statistics across them")
    return [value.flow]


def group_normalization(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """GroupNormalization: a whole group of channels goes, so that the statistics of the others stay."""
    flow = inputs[0].flow
    if layer.axis % len(inputs[0].shape) != flow.axis:
        raise CannotFollowError(f"{layer.name} (GroupNormalization) takes its statistics across them")
    groups = len(flow.atoms) if layer.groups == -1 else layer.groups
    if groups == 1:
        raise CannotFollowError(f"{layer.name} (GroupNormalization with one group) takes its statistics across them")
    for some in np.split(flow.atoms, groups):
        book.atoms.join_all(some)
    for attribute in ("gamma", "beta"):
        book.cut(layer, attribute, 0, Role.FOLLOWS, flow.atoms)
    book.comes_out(layer, flow)
    return [flow]


def prelu(book: Book, layer: Any, inputs: list[Value], outputs: list[Any]) -> list[Flow]:
    """PReLU: slopes have the shape of a sample, or 1 where they are shared."""
    flow = inputs[0].flow
    if int(layer.alpha.shape[flow.axis - 1]) == len(flow.atoms):
        book.cut(layer, "alpha", flow.axis - 1, Role.FOLLOWS, flow.atoms)
    return [flow]


def _channels_last(layer: Any, value: Value) -> Indices:
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) has its channels first")
    return value.on_last(layer)


def _answer(book: Book, layer: Any, channels: Indices, outputs: list[Any]) -> list[Flow]:
    flow = along_last(outputs[0], channels)
    book.comes_out(layer, flow)
    if layer.bias is not None:
        book.cut(layer, "bias", 0, Role.FOLLOWS, channels)
    name = activation_name(layer)
    if name not in ELEMENTWISE:
        book.atoms.freeze(channels, f"the activation {name} of {layer.name} is not known to treat each alone")
    return [flow]


def _use(book: Book, layer: Any, x: Value, *ends: tuple[Indices, Indices]) -> None:
    """Note what a call computes: channels in and out of each of its kernels."""
    groups = getattr(layer, "groups", 1)
    for shape, (before, after) in zip(shapes_of(layer, x.shape[1:]), ends, strict=True):
        book.uses.append(Use(layer, shape, before, after, groups))
