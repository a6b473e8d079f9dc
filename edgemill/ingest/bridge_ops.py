"""Keras 3 operations (`x + y`, `keras.ops.relu(x)`) in Keras 2 layers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from edgemill.ingest.bridge_layers import CannotBridgeError, Twin, activation, hard_sigmoid
from edgemill.tf import keras

_MERGE = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}
_ACTIVATIONS = {
    "Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Silu": "silu", "Tanh": "tanh", "Selu": "selu",
    "Softplus": "softplus", "Softsign": "softsign", "Exp": "exponential", "HardSilu": "hard_silu", "Mish": "mish",
}  # fmt: skip


def translate_operation(operation: Any, name: str) -> Twin:
    """The Keras 2 counterpart of a Keras 3 operation that is not a layer.

    Returns:
        A function of symbolic or real tensors, to be called as the operation was.

    Raises:
        CannotBridgeError: there is none (possibly only when it is called).
    """
    kind = type(operation).__name__
    layers: dict[str, Any] = {}

    def once(build: Any) -> Any:
        """The layer of this operation, built at its first call and shared by later ones."""
        if "layer" not in layers:
            layers["layer"] = build()
        return layers["layer"]

    if kind in _ACTIVATIONS:
        return activation(_ACTIVATIONS[kind], name)
    if kind == "HardSigmoid":
        return hard_sigmoid(name)
    if kind in _MERGE or kind in ("TrueDivide", "Divide"):
        return lambda a, b: _binary(kind, a, b, name, once)
    build = _unary(kind, operation, name)
    return lambda x, *_, **__: once(lambda: build(x))(x)


def _binary(kind: str, a: Any, b: Any, name: str, once: Any) -> Any:
    left, right = _constant(a), _constant(b)
    if left is None and right is None:
        if kind not in _MERGE:
            raise CannotBridgeError("divides two tensors")
        if len(a.shape) != len(b.shape):
            raise CannotBridgeError(f"joins tensors of ranks {len(a.shape)} and {len(b.shape)}")
        return once(lambda: getattr(keras.layers, _MERGE[kind])(name=name))([a, b])
    value = right if left is None else left
    x = a if left is None else b
    if value is None or value.size != 1:
        raise CannotBridgeError("takes an array as a constant")
    number = float(value.reshape(-1)[0])
    if kind == "Add":
        scale, offset = 1.0, number
    elif kind == "Subtract":
        scale, offset = (1.0, -number) if left is None else (-1.0, number)
    elif kind == "Multiply":
        scale, offset = number, 0.0
    elif left is None and kind in ("TrueDivide", "Divide"):
        scale, offset = 1.0 / number, 0.0
    else:
        raise CannotBridgeError("takes a constant")
    return once(lambda: keras.layers.Rescaling(scale, offset=offset, name=name))(x)


def _constant(value: Any) -> Any:
    """A number or array as it stands in the graph, None for a tensor that depends on the input."""
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):
        return np.asarray(value, dtype=np.float64)
    return None


def _unary(kind: str, operation: Any, name: str) -> Any:
    """A function that makes the layer once the shape of the operand is known."""
    layers = keras.layers
    builders = {
        "Negative": lambda _: layers.Rescaling(-1.0, name=name),
        "LeakyRelu": lambda _: layers.LeakyReLU(alpha=float(operation.negative_slope), name=name),
        "Elu": lambda _: layers.ELU(alpha=float(operation.alpha), name=name),
        "Softmax": lambda _: layers.Softmax(axis=operation.axis, name=name),
        "Gelu": lambda _: _gelu(operation, name),
        "Concatenate": lambda _: layers.Concatenate(axis=operation.axis, name=name),
        "Reshape": lambda x: _reshape(x, operation.newshape, name),
        "Transpose": lambda _: _permute(operation.axes, name),
        "Mean": lambda x: _pool("Average", x, operation, name),
        "Max": lambda x: _pool("Max", x, operation, name),
        "ExpandDims": lambda x: _resize(kind, x, operation.axis, name),
        "Squeeze": lambda x: _resize(kind, x, operation.axis, name),
    }
    if kind not in builders:
        raise CannotBridgeError("Keras 2 has no layer for this operation")
    return builders[kind]


def _gelu(operation: Any, name: str) -> Any:
    if operation.approximate:
        raise CannotBridgeError("Keras 2 has no layer for the approximate form")
    return keras.layers.Activation("gelu", name=name)


def _reshape(x: Any, shape: Any, name: str) -> Any:
    target = tuple(shape)
    free = target[1:].count(-1) + target[1:].count(None)
    known = None not in x.shape[1:]
    if not target or target[0] not in (-1, None) or (known and not free and prod(target[1:]) != prod(x.shape[1:])):
        raise CannotBridgeError("reshapes the batch axis")
    return keras.layers.Reshape(tuple(-1 if dim is None else int(dim) for dim in target[1:]), name=name)


def _permute(axes: Any, name: str) -> Any:
    if axes is None or axes[0] != 0:
        raise CannotBridgeError("moves the batch axis")
    return keras.layers.Permute(tuple(int(axis) for axis in axes[1:]), name=name)


def _pool(kind: str, x: Any, operation: Any, name: str) -> Any:
    rank = len(x.shape)
    axis = operation.axis
    axes = () if axis is None else tuple(a % rank for a in (axis if isinstance(axis, (list, tuple)) else (axis,)))
    if rank not in (3, 4, 5) or sorted(axes) != list(range(1, rank - 1)):
        raise CannotBridgeError(f"reduces axes {axis} of a tensor of rank {rank}")
    layer = f"Global{kind}Pooling{rank - 2}D"
    return getattr(keras.layers, layer)(keepdims=bool(operation.keepdims), name=name)


def _resize(kind: str, x: Any, axis: Any, name: str) -> Any:
    shape = [-1 if dim is None else int(dim) for dim in x.shape]
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    if axis is None or len(axes) != 1 or shape.count(-1) > 2:
        raise CannotBridgeError("changes several axes at once")
    if kind == "ExpandDims":
        shape.insert(axes[0] % (len(shape) + 1), 1)
    else:
        del shape[axes[0] % len(shape)]
    return keras.layers.Reshape(tuple(shape[1:]), name=name)
