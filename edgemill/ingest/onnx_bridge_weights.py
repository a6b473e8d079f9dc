"""ONNX operators with weights in Keras 2 layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgemill.ingest.bridge_layers import CannotBridgeError
from edgemill.ingest.onnx_bridge_graph import Affine, Graph, attribute
from edgemill.ingest.onnx_bridge_layout import (
    Value,
    channels_first,
    channels_last_order,
    identity,
    inverse,
    known,
)
from edgemill.ingest.onnx_bridge_windows import pad, padding_of, windows_of

Made = Value | tuple[Value, NodeProto]
Weight = NDArray[Any]


def _conv(graph: Graph, node: NodeProto) -> Made:
    weight = graph.weight(node, 1)
    value = graph.value(node)
    if weight.ndim not in (3, 4) or value.rank != weight.ndim:
        raise CannotBridgeError(f"a convolution over {weight.ndim - 2} axes")
    count, name, kernel = weight.ndim - 2, graph.label(node), weight.shape[2:]
    x = graph.channels_last(value, name)
    strides, dilations = windows_of(node, count)
    padding, explicit = padding_of(node, kernel, strides, dilations, x.shape[1:-1])
    bias = _bias_of(graph, node, 2, weight.shape[0])
    affine, last = graph.absorb(node, _per_channel(weight.shape[0], weight.ndim, 1))
    weight, bias = _scaled(weight, bias, affine, 0)
    group, channels = attribute(node, "group", 1), known(x.shape[-1:])[0]
    settings: dict[str, Any] = {
        "kernel_size": kernel,
        "strides": strides,
        "dilation_rate": dilations,
        "padding": padding,
        "use_bias": bias is not None,
    }
    # TensorFlow has depthwise convolutions with one stride for both axes only
    if group == channels > 1 and len(set(strides)) == 1:
        multiplier = weight.shape[0] // channels
        layer = graph.layer(f"DepthwiseConv{count}D", name, depth_multiplier=multiplier, **settings)
        kernels = weight.reshape(channels, multiplier, *kernel).transpose(*range(2, count + 2), 0, 1)
    else:
        layer = graph.layer(f"Conv{count}D", name, filters=weight.shape[0], groups=group, **settings)
        kernels = weight.transpose(*range(2, count + 2), 1, 0)
    return channels_first(_weighted(layer, pad(graph, x, explicit, name), kernels, bias)), last


def _conv_transpose(graph: Graph, node: NodeProto) -> Made:
    weight = graph.weight(node, 1)
    value = graph.value(node)
    if weight.ndim not in (3, 4) or value.rank != weight.ndim:
        raise CannotBridgeError(f"a convolution over {weight.ndim - 2} axes")
    count, name, kernel = weight.ndim - 2, graph.label(node), weight.shape[2:]
    strides, dilations = windows_of(node, count)
    if attribute(node, "group", 1) != 1 or set(dilations) != {1}:
        raise CannotBridgeError("a transposed convolution with groups or dilations")
    x = graph.channels_last(value, name)
    padding, crops = _cropped(node, kernel, strides, known(x.shape[1:-1]))
    filters = weight.shape[1]
    bias = _bias_of(graph, node, 2, filters)
    affine, last = graph.absorb(node, _per_channel(filters, weight.ndim, 1))
    weight, bias = _scaled(weight, bias, affine, 1)
    layer = graph.layer(
        f"Conv{count}DTranspose",
        name,
        filters=filters,
        kernel_size=kernel,
        strides=strides,
        padding=padding,
        use_bias=bias is not None,
    )
    y = _weighted(layer, x, weight.transpose(*range(2, count + 2), 1, 0), bias)
    if any(sum(pair) for pair in crops):
        y = graph.layer(f"Cropping{count}D", f"{name}_crop", crops[0] if count == 1 else tuple(crops))(y)
    return channels_first(y), last


def _cropped(
    node: NodeProto, kernel: Sequence[int], strides: Sequence[int], sizes: Sequence[int]
) -> tuple[str, list[tuple[int, int]]]:
    """Keras' padding, and what to cut off behind it, for a transposed convolution."""
    count = len(kernel)
    pads = attribute(node, "pads", [0] * (2 * count))
    more = attribute(node, "output_padding", [0] * count)
    wanted = attribute(node, "output_shape", [])
    auto = attribute(node, "auto_pad", "NOTSET")
    crops, same = [], []
    for axis, (k, s, size) in enumerate(zip(kernel, strides, sizes, strict=True)):
        reached = s * (size - 1) + k + more[axis]
        if wanted or auto.startswith("SAME"):
            total = max(reached - (wanted[axis - count] if wanted else s * size), 0)
            begin, out = total // 2 if auto == "SAME_UPPER" else total - total // 2, reached - total
            if wanted and out != wanted[axis - count]:
                raise CannotBridgeError("its output goes beyond what its kernel reaches")
        else:
            begin, out = pads[axis], reached - pads[axis] - pads[axis + count]
        crops.append((begin, s * size + max(k - s, 0) - begin - out))
        same.append(out == s * size and begin == max(k - s, 0) // 2)
    if all(same) and any(sum(pair) for pair in crops):
        return "same", [(0, 0)] * count
    if any(value < 0 for pair in crops for value in pair):
        raise CannotBridgeError("its output goes beyond what its kernel reaches")
    return "valid", crops


def _gemm(graph: Graph, node: NodeProto) -> Made:
    if attribute(node, "transA", 0):
        raise CannotBridgeError("transposes its input")
    weight = graph.weight(node, 1)
    if attribute(node, "transB", 0):
        weight = weight.T
    bias = _bias_of(graph, node, 2, weight.shape[1])
    if bias is not None:
        bias = bias * attribute(node, "beta", 1.0)
    return _dense(graph, node, weight * attribute(node, "alpha", 1.0), bias)


def _matmul(graph: Graph, node: NodeProto) -> Made:
    if node.input[0] in graph.constants:
        raise CannotBridgeError("multiplies a constant by a tensor")
    weight = graph.weight(node, 1)
    if weight.ndim != 2:
        raise CannotBridgeError(f"multiplies by a constant of {weight.ndim} axes")
    return _dense(graph, node, weight, None)


def _dense(graph: Graph, node: NodeProto, weight: Weight, bias: Weight | None) -> Made:
    value, name = graph.value(node), graph.label(node)
    units, rank = weight.shape[1], value.rank
    affine, last = graph.absorb(node, _per_channel(units, rank, rank - 1))
    weight, bias = _scaled(weight, bias, affine, 1)
    if value.flat:  # the kernel's rows go where the values are, instead of the values where the rows are
        order, given = value.flat_order(), weight
        weight = np.empty_like(given)
        weight[order] = given
        x = graph.layer("Flatten", f"{name}_flatten")(value.tensor)
    else:
        x = graph.arranged(value, range(rank), name)
    layer = graph.layer("Dense", graph.label(last) if graph.label(last) in graph.outputs else name, units,
                        use_bias=bias is not None)  # fmt: skip
    return identity(_weighted(layer, x, weight, bias)), last


def _batch_normalization(graph: Graph, node: NodeProto) -> Made:
    if attribute(node, "training_mode", 0):
        raise CannotBridgeError("normalizes with the statistics of the batch")
    value, name = graph.value(node), graph.label(node)
    order = channels_last_order(value.rank)
    x = graph.arranged(value, order, name)
    layer = graph.layer(
        "BatchNormalization", name, epsilon=attribute(node, "epsilon", 1e-5), momentum=attribute(node, "momentum", 0.9)
    )
    y = _weighted(layer, x, *(graph.weight(node, index, "statistics") for index in range(1, 5)))
    return Value(y, inverse(order))


def _layer_normalization(graph: Graph, node: NodeProto) -> Made:
    value, name = graph.value(node), graph.label(node)
    if attribute(node, "axis", -1) % value.rank != value.rank - 1:
        raise CannotBridgeError("normalizes several axes together")
    if any(output in graph.readers for output in node.output[1:]):
        raise CannotBridgeError("hands its statistics on")
    x = graph.arranged(value, range(value.rank), name)
    shift = graph.weight(node, 2) if len(node.input) > 2 else None
    layer = graph.layer("LayerNormalization", name, epsilon=attribute(node, "epsilon", 1e-5), center=shift is not None)
    return identity(_weighted(layer, x, graph.weight(node, 1), shift))


def _prelu(graph: Graph, node: NodeProto) -> Made:
    value, name = graph.resolved(graph.value(node), graph.label(node)), graph.label(node)
    slope = value.constant(graph.weight(node, 1, "slopes"))
    if slope is None:
        raise CannotBridgeError("slopes of another shape than its input")
    if slope.ndim == 0:
        slope = slope.reshape((1,) * (len(value.tensor.shape) - 1))
    shared = [axis + 1 for axis, size in enumerate(slope.shape) if size == 1 != value.tensor.shape[axis + 1]]
    return value.of(_weighted(graph.layer("PReLU", name, shared_axes=shared or None), value.tensor, slope))


def _gather(graph: Graph, node: NodeProto) -> Made:
    table = graph.constant(node.input[0])
    if table is None or table.ndim != 2 or attribute(node, "axis", 0) != 0:
        raise CannotBridgeError("picks parts of a tensor")
    value = graph.values[node.input[1]]
    if not value.indices or value.axes != tuple(range(len(value.axes))):
        raise CannotBridgeError("looks up with computed numbers")
    layer = graph.layer("Embedding", graph.label(node), table.shape[0], table.shape[1])
    return identity(_weighted(layer, value.tensor, table))


def _per_channel(channels: int, rank: int, axis: int) -> Callable[[Weight], bool]:
    """Whether a constant that is broadcast over a tensor differs at most between channels."""

    def fits(value: Weight) -> bool:
        if value.size == 1:
            return value.ndim <= rank
        padded = (1,) * (rank - value.ndim) + value.shape
        return value.size == channels and len(padded) == rank and padded[axis] == channels

    return fits


def _bias_of(graph: Graph, node: NodeProto, index: int, channels: int) -> Weight | None:
    if len(node.input) <= index or not node.input[index]:
        return None
    bias = graph.weight(node, index, "bias")
    if bias.size not in (1, channels) or bias.shape[-1:] not in ((), (1,), (channels,)):
        raise CannotBridgeError(f"a bias of shape {bias.shape}")
    return np.broadcast_to(bias.reshape(-1), (channels,))


def _scaled(weight: Weight, bias: Weight | None, affine: Affine, axis: int) -> tuple[Weight, Weight | None]:
    """Weights and bias with a factor and an offset of each output channel worked in."""
    scale, offset = (np.broadcast_to(item.reshape(-1), (weight.shape[axis],)) for item in affine)
    shape = [1] * weight.ndim
    shape[axis] = weight.shape[axis]
    if bias is not None or offset.any():
        bias = (0.0 if bias is None else bias) * scale + offset
    return (weight * scale.reshape(shape)).astype(np.float32), bias


def scale_into(layer: Any, scale: Weight, offset: Weight) -> Any:
    """A copy of a layer with weights, with a factor and an offset of each output channel worked in, and its answer.

    None where the layer is of no kind that can do this.
    """
    kind = type(layer).__name__
    if kind not in _KERNEL_SHAPES:
        return None
    kernel, *held = layer.get_weights()
    bias = held[0] if held else np.zeros(())
    copy = type(layer).from_config(layer.get_config() | {"use_bias": True})
    factors = scale.reshape(_KERNEL_SHAPES[kind](kernel)) if scale.size > 1 else scale.reshape(())
    channels = layer.output_shape[-1]
    return _weighted(
        copy, layer.input, kernel * factors, np.broadcast_to((bias * scale + offset).reshape(-1), (channels,))
    )


# How factors of the output channels are laid out to be multiplied with the kernel.
_KERNEL_SHAPES: dict[str, Callable[[Weight], tuple[int, ...]]] = {
    "Conv1D": lambda kernel: (-1,),
    "Conv2D": lambda kernel: (-1,),
    "Conv1DTranspose": lambda kernel: (-1, 1),
    "Conv2DTranspose": lambda kernel: (-1, 1),
    "Dense": lambda kernel: (-1,),
    "DepthwiseConv1D": lambda kernel: tuple(kernel.shape[-2:]),
    "DepthwiseConv2D": lambda kernel: tuple(kernel.shape[-2:]),
}


def _weighted(layer: Any, x: Any, *weights: Weight | None) -> Any:
    """The layer's answer, once it has its weights."""
    answer = layer(x)
    values = [np.asarray(weight, np.float32) for weight in weights if weight is not None]
    wanted = [tuple(weight.shape) for weight in layer.weights]
    if [value.shape for value in values] != wanted:
        raise CannotBridgeError(f"weights of shapes {[v.shape for v in values]}, Keras wants {wanted}")
    layer.set_weights(values)
    return answer


WEIGHTED: dict[str, Callable[[Graph, NodeProto], Made]] = {
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalization,
    "MatMul": _matmul,
    "PRelu": _prelu,
}
