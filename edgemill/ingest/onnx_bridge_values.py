"""ONNX operators on single values, and those that only rearrange them, in Keras 2 layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edgemill.ingest.bridge_layers import CannotBridgeError, hard_sigmoid
from edgemill.ingest.onnx_bridge_graph import BATCH_SIZE, Affine, Graph, attribute
from edgemill.ingest.onnx_bridge_layout import Value, identity, product
from edgemill.ingest.onnx_bridge_weights import scale_into

Made = Value | tuple[Value, NodeProto]
Unary = Callable[[Graph, NodeProto, str], Callable[[Any], Any]]

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.INT64, TensorProto.INT32}
# Larger constants do not belong into the configuration of a layer.
_LARGEST_CONSTANT = 1 << 14
_IMAGE = 4
_EPSILON = 1e-3


def _activation(kind: str) -> Unary:
    return lambda graph, node, name: graph.layer("Activation", name, kind)


def _scaling(graph: Graph, name: str, scale: Any, offset: Any) -> Any:
    return graph.layer("Rescaling", name, scale, offset=offset)


def _clip(graph: Graph, node: NodeProto, name: str) -> Callable[[Any], Any]:
    low, high = (
        float(graph.weight(node, index, "limits").reshape(-1)[0])
        if len(node.input) > index and node.input[index]
        else limit
        for index, limit in ((1, -np.inf), (2, np.inf))
    )
    return _clipped(graph, name, low, high)


def _clipped(graph: Graph, name: str, low: float, high: float) -> Callable[[Any], Any]:
    """Limits as layers that runtimes and quantizers know: ReLU, with a shift where it must be."""
    low, high = (value if abs(value) < np.finfo(np.float32).max else np.inf * np.sign(value) for value in (low, high))
    if low == -np.inf and high == np.inf:
        return lambda x: x
    limit = None if high == np.inf else high - (0.0 if low == -np.inf else low)
    if low == 0.0:
        plain: Callable[[Any], Any] = graph.layer("ReLU", name, max_value=limit)
        return plain
    turned = low == -np.inf
    before = _scaling(graph, f"{name}_shift", -1.0 if turned else 1.0, high if turned else -low)
    relu = graph.layer("ReLU", f"{name}_clip", max_value=None if turned else limit)
    after = _scaling(graph, name, -1.0 if turned else 1.0, high if turned else low)
    return lambda x: after(relu(before(x)))


def _hard_sigmoid(graph: Graph, node: NodeProto, name: str) -> Callable[[Any], Any]:
    slope, shift = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if abs(slope * 6 - 1) < 1e-5 and shift == 0.5:
        return hard_sigmoid(graph.reserve(name))
    before = _scaling(graph, f"{name}_shift", slope, shift)
    clip = graph.layer("ReLU", name, max_value=1.0)
    return lambda x: clip(before(x))


def _hard_swish(graph: Graph, node: NodeProto, name: str) -> Callable[[Any], Any]:
    gate = hard_sigmoid(graph.reserve(f"{name}_gate"))
    product_layer = graph.layer("Multiply", name)
    return lambda x: product_layer([x, gate(x)])


def _same(graph: Graph, node: NodeProto, name: str) -> Callable[[Any], Any]:
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        mode = graph.constant(node.input[2])
        if mode is None or mode.any():
            raise CannotBridgeError("drops values at random")
    return lambda x: x


_UNARY: dict[str, Unary] = {
    "Clip": _clip,
    "Dropout": _same,
    "Elu": lambda graph, node, name: graph.layer("ELU", name, alpha=attribute(node, "alpha", 1.0)),
    "Exp": _activation("exponential"),
    "Gelu": _activation("gelu"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _same,
    "LeakyRelu": lambda graph, node, name: graph.layer("LeakyReLU", name, alpha=attribute(node, "alpha", 0.01)),
    "Neg": lambda graph, node, name: _scaling(graph, name, -1.0, 0.0),
    "Relu": lambda graph, node, name: graph.layer("ReLU", name),
    "Selu": _activation("selu"),
    "Sigmoid": _activation("sigmoid"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Tanh": _activation("tanh"),
}
_NONNEGATIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Exp"}
_KEEPS_SIGN = {
    "AveragePool", "Concat", "Dropout", "Flatten", "GlobalAveragePool", "GlobalMaxPool", "Identity", "MaxPool", "Pad",
    "ReduceMax", "ReduceMean", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Add",
}  # fmt: skip


def never_negative(graph: Graph, node: NodeProto) -> bool:
    """Whether the answer of a node is never below 0, as far as that is plain to see."""
    if node.op_type == "Clip" and len(node.input) > 1 and node.input[1] in graph.constants:
        return bool((graph.constants[node.input[1]] >= 0).all())
    if node.op_type in _KEEPS_SIGN:
        operands = [name for name in node.input if name in graph.values]
        both = node.op_type != "Add" or len(operands) == len(node.input)
        return both and all(name in graph.nonnegative for name in operands)
    return node.op_type in _NONNEGATIVE


def _elementwise(graph: Graph, node: NodeProto) -> Value:
    value = graph.value(node)
    return value.of(_UNARY[node.op_type](graph, node, graph.label(node))(value.tensor))


def _cast(graph: Graph, node: NodeProto) -> Value:
    value, wanted = graph.values[node.input[0]], attribute(node, "to", TensorProto.FLOAT)
    if wanted in _FLOATS and not value.indices:
        return value
    if wanted in _INTEGERS:
        return Value(value.tensor, value.axes, value.flat, indices=True)
    raise CannotBridgeError(f"turns numbers into {helper.tensor_dtype_to_string(wanted)}")


def _softmax(graph: Graph, node: NodeProto) -> Value:
    value, name = graph.resolved(graph.value(node), graph.label(node)), graph.label(node)
    axis = attribute(node, "axis", -1) % value.rank
    if value.position(axis) is None:
        value = identity(graph.arranged(value, range(value.rank), name))
    place = value.position(axis)
    last = place == len(value.tensor.shape) - 1
    if node.op_type == "LogSoftmax":
        if not last:
            order = [i for i in range(value.rank) if i != axis] + [axis]
            value = Value(graph.arranged(value, order, name), tuple(order.index(i) for i in range(value.rank)))
        return value.of(graph.layer("Activation", name, "log_softmax")(value.tensor))
    layer = graph.layer("Softmax", name, axis=-1 if last else place)
    return value.of(layer(value.tensor))


# --- two operands ---------------------------------------------------------------------------------

_MERGE = {
    "Add": "Add", "Sum": "Add", "Sub": "Subtract", "Mul": "Multiply", "Max": "Maximum", "Min": "Minimum",
    "Mean": "Average",
}  # fmt: skip


def _arithmetic(graph: Graph, node: NodeProto) -> Made:
    source = next(name for name in node.input if name in graph.values)
    affine = graph.affine(node, source)
    if affine is not None:
        return _rescaled(graph, node, graph.values[source], affine)
    name = graph.label(node)
    if len(node.input) == 1:
        return graph.value(node)
    if node.op_type in ("Max", "Min") and len(node.input) == 2 and any(n in graph.constants for n in node.input):
        return _limited(graph, node, source, name)
    if node.op_type not in _MERGE:
        raise CannotBridgeError("divides by a tensor")
    values = [graph.value(node, index) for index in range(len(node.input))]
    tensors, value = graph.together(values, name)
    return value.of(graph.layer(_MERGE[node.op_type], name)(tensors))


def _limited(graph: Graph, node: NodeProto, source: str, name: str) -> Value:
    limit = graph.constant(next(other for other in node.input if other != source))
    if limit is None or limit.size != 1 or limit.ndim > graph.values[source].rank:
        raise CannotBridgeError("has a limit for every value")
    number = float(limit.reshape(-1)[0])
    if node.op_type == "Max":
        low, high = number, np.inf
    else:
        low, high = (0.0 if source in graph.nonnegative else -np.inf), number
    return graph.values[source].of(_clipped(graph, name, low, high)(graph.values[source].tensor))


def _rescaled(graph: Graph, node: NodeProto, value: Value, affine: Affine) -> Made:
    """Arithmetic with constants: what follows it directly is worked into the same layer."""
    name = graph.label(node)
    if value.indices:
        raise CannotBridgeError("computes with integers")
    if any(item.size != 1 for item in affine):
        value = graph.resolved(value, name)
    if any(value.constant(item) is None for item in affine):
        value = identity(graph.arranged(value, range(value.rank), name))
    if any(value.constant(item) is None or item.ndim > value.rank for item in affine):
        raise CannotBridgeError(f"a constant of another shape than its operand's {value.shape}")
    (scale, offset), last = graph.absorb(node, lambda item: value.constant(item) is not None)
    scale, offset = affine[0] * scale, affine[1] * scale + offset
    scales, offsets = (value.constant(item) for item in (scale, offset))
    if scales is None or offsets is None or max(scales.size, offsets.size) > _LARGEST_CONSTANT:
        raise CannotBridgeError("a large constant")
    if graph.label(last) in graph.outputs:
        name = graph.label(last)
    return value.of(_affine_layer(graph, node, value, scales, offsets, name)), last


def _affine_layer(
    graph: Graph, node: NodeProto, value: Value, scale: NDArray[Any], offset: NDArray[Any], name: str
) -> Any:
    x = value.tensor
    channels = x.shape[-1]
    per_channel = all(item.size == 1 or item.shape[-1] == item.size == channels for item in (scale, offset))
    source = next(item for item in node.input if item in graph.values)
    if per_channel and not value.flat and graph.values[source].tensor is x and graph.is_last_use(source):
        answer = scale_into(x._keras_history.layer, scale, offset)
        if answer is not None:
            return answer
    if scale.size == offset.size == 1 or not per_channel or not set(node.input) & graph.trained:
        return _scaling(graph, name, _plain(scale), _plain(offset))(x)
    # In the middle of a network it has weights, which follow the width of a student.
    factors, offsets = (np.broadcast_to(item.reshape(-1), (channels,)) for item in (scale, offset))
    if len(x.shape) == _IMAGE:
        layer = graph.layer("DepthwiseConv2D", name, 1)
        answer = layer(x)
        layer.set_weights([factors.reshape(1, 1, channels, 1), offsets])
        return answer
    # It was one most likely. Frozen, because the statistics are not known any more.
    layer = graph.layer("BatchNormalization", name, epsilon=_EPSILON, trainable=False)
    answer = layer(x)
    layer.set_weights([factors, offsets, np.zeros(channels), np.full(channels, 1 - _EPSILON)])
    return answer


def _plain(value: NDArray[Any]) -> Any:
    """A constant as it may stand in a configuration: a number, or nested lists without outer axes of 1."""
    if value.size == 1:
        return float(value.reshape(-1)[0])
    while value.shape[0] == 1:
        value = value[0]
    return value.tolist()


def _power(graph: Graph, node: NodeProto) -> Value:
    exponent = graph.weight(node, 1, "exponent")
    if exponent.size != 1 or float(exponent.reshape(-1)[0]) != 2.0:
        raise CannotBridgeError("a power other than the square")
    value = graph.value(node)
    return value.of(graph.layer("Multiply", graph.label(node))([value.tensor, value.tensor]))


def _concat(graph: Graph, node: NodeProto) -> Value:
    name = graph.label(node)
    values = [graph.value(node, index) for index in range(len(node.input))]
    axis = attribute(node, "axis", 0) % values[0].rank
    if axis == 0:
        raise CannotBridgeError("joins along the batch axis")
    tensors, value = graph.together(values, name, needed=axis)
    place = value.position(axis)
    last = place == len(value.tensor.shape) - 1
    return value.of(graph.layer("Concatenate", name, axis=-1 if last else place)(tensors))


# --- shapes ---------------------------------------------------------------------------------------


def _transpose(graph: Graph, node: NodeProto) -> Value:
    value = graph.resolved(graph.value(node), graph.label(node))
    order = attribute(node, "perm", []) or list(reversed(range(value.rank)))
    if order[0] != 0:
        raise CannotBridgeError("moves the batch axis")
    return Value(value.tensor, tuple(value.axes[axis] for axis in order))


def _flatten(graph: Graph, node: NodeProto) -> Value:
    value = graph.value(node)
    if attribute(node, "axis", 1) % (value.rank + 1) != 1:
        raise CannotBridgeError("flattens the batch axis")
    return _reshaped(graph, node, value, (product(value.shape[1:]),))


def _reshape(graph: Graph, node: NodeProto) -> Value:
    value, sizes = graph.value(node), graph.sizes(node, 1)
    if not sizes:
        raise CannotBridgeError("reshapes to a single value")
    shape = value.shape
    if not attribute(node, "allowzero", 0):
        sizes = [
            (BATCH_SIZE if i == 0 else -2 if shape[i] is None else shape[i]) if size == 0 else size  # type: ignore[misc]
            for i, size in enumerate(sizes)
        ]
    total = product(shape[1:])
    target: list[int | None] = [None if size == -2 else size for size in sizes[1:]]
    if -1 in target:
        others = product([size for size in target if size != -1])
        if sizes[0] != BATCH_SIZE or (total is not None and others is not None and (not others or total % others)):
            raise CannotBridgeError("reshapes the batch axis")
        filled = None if total is None or others is None else total // others
        target = [filled if size == -1 else size for size in target]
    if sizes[0] not in (BATCH_SIZE, -1) or (total is not None and product(target) != total) or len(sizes) < 2:
        raise CannotBridgeError("reshapes the batch axis")
    if sizes[0] == -1 and total is None and [s for s in target if s != 1] != [s for s in shape[1:] if s != 1]:
        raise CannotBridgeError("reshapes a free size")
    return _reshaped(graph, node, value, tuple(target))


def _reshaped(graph: Graph, node: NodeProto, value: Value, target: tuple[int | None, ...]) -> Value:
    """Another shape of one sample; nothing happens where only axes of size 1 come and go."""
    shape, name = value.shape, graph.label(node)
    if target == shape[1:]:
        return value
    solid = [axis for axis in range(1, value.rank) if shape[axis] != 1]
    if not value.flat and [shape[axis] for axis in solid] == [size for size in target if size != 1]:
        rest = iter(solid)
        return Value(value.tensor, (0, *(None if size == 1 else value.axes[next(rest)] for size in target)))
    if len(target) == 1 and not value.flat and not value.ordered and target[0] is not None:
        return Value(value.tensor, value.axes, flat=True)
    tensor = graph.arranged(value, range(value.rank), name) if not value.ordered or value.flat else value.tensor
    return identity(graph.reshaped(tensor, target, name))


def _squeeze(graph: Graph, node: NodeProto) -> Value:
    value = graph.resolved(graph.value(node), graph.label(node))
    axes = graph.sizes(node, 1)
    gone = {a % value.rank for a in axes} if axes else {i for i in range(1, value.rank) if value.shape[i] == 1}
    if any(value.shape[axis] != 1 for axis in gone):
        raise CannotBridgeError(f"removes the axes {sorted(gone)} of {value.shape}")
    return Value(value.tensor, tuple(axis for i, axis in enumerate(value.axes) if i not in gone))


def _unsqueeze(graph: Graph, node: NodeProto) -> Value:
    value, axes = graph.resolved(graph.value(node), graph.label(node)), graph.sizes(node, 1) or []
    new = {axis % (value.rank + len(axes)) for axis in axes}
    if 0 in new:
        raise CannotBridgeError("adds an axis before the batch")
    rest = iter(value.axes)
    return Value(value.tensor, tuple(None if i in new else next(rest) for i in range(value.rank + len(axes))))


VALUES: dict[str, Callable[[Graph, NodeProto], Made]] = {
    **dict.fromkeys(_UNARY, _elementwise),
    **dict.fromkeys((*_MERGE, "Div"), _arithmetic),
    "Cast": _cast,
    "Concat": _concat,
    "Flatten": _flatten,
    "LogSoftmax": _softmax,
    "Pow": _power,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
