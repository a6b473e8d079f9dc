"""A Keras 2 model as one flat model of layers that tfmot knows.

Transfer learning leaves models inside models, and arithmetic written as `x / 127.5 - 1` leaves
TFOpLambda layers; tfmot takes neither. Both are rewritten with the same weights where that is
possible. `checkpoint.run` proves that the result answers like the original.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgemill.tf import keras, tf

_SCALAR = {"math.add": "+", "__operators__.add": "+", "math.subtract": "-", "math.multiply": "*", "math.truediv": "/"}
_MERGE = {"+": "Add", "-": "Subtract", "*": "Multiply"}
_LAYERS = {"nn.relu": ("ReLU", {}), "nn.relu6": ("ReLU", {"max_value": 6.0}), "nn.softmax": ("Softmax", {})}


def flatten(model: Any) -> Any:
    """The same functional model without nested models, sharing its layers; itself if there is nothing to do.

    Args:
        model: built tf_keras model with one input.
    """
    nested = any(isinstance(layer, keras.Model) or _is_operation(layer) for layer in model.layers)
    if not nested or not _is_graph(model):
        return model
    walk = _Walk()
    source = model.inputs[0]
    symbol = keras.Input(tuple(source.shape[1:]), dtype=source.dtype, name=walk.name("", model.input_names[0]))
    outputs = walk.run(model, [symbol], "")
    return keras.Model(symbol, outputs[0] if len(outputs) == 1 else outputs, name=model.name)


def _is_graph(model: Any) -> bool:
    return bool(getattr(model, "_is_graph_network", False))


def _is_symbolic(value: Any) -> bool:
    return hasattr(value, "_keras_history")


def _is_operation(layer: Any) -> bool:
    return type(layer).__name__ == "TFOpLambda"


class _Walk:
    """One replay of a graph of layers; every layer object is used again, under a name of its own."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._seen: dict[int, Any] = {}

    def run(self, model: Any, inputs: list[Any], prefix: str) -> list[Any]:
        """Outputs of the model for other symbolic inputs."""
        values: dict[str, Any] = {}
        for tensor, value in zip(model.inputs, inputs, strict=True):
            values[str(id(tensor))] = value
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                # map_arguments takes each value from a list, once per use
                lists = {key: [value] for key, value in values.items()}
                args, kwargs = node.map_arguments(_Endless(lists))
                answers = self._apply(node.layer, args, kwargs, prefix)
                for tensor, value in zip(tf.nest.flatten(node.outputs), tf.nest.flatten(answers), strict=True):
                    values[str(id(tensor))] = value
        return [values[str(id(tensor))] for tensor in model.outputs]

    def name(self, prefix: str, name: str) -> str:
        """A name that no other layer has."""
        candidate, number = (name if name not in self._names else f"{prefix}{name}"), 1
        while candidate in self._names:
            candidate = f"{prefix}{name}_{number}"
            number += 1
        self._names.add(candidate)
        return candidate

    def _apply(self, layer: Any, args: Any, kwargs: dict[str, Any], prefix: str) -> Any:
        if isinstance(layer, keras.Model) and _is_graph(layer):
            return self.run(layer, tf.nest.flatten(args), f"{prefix}{layer.name}_")
        if id(layer) not in self._seen:
            layer._name = self.name(prefix, layer.name)
            self._seen[id(layer)] = layer
        if _is_operation(layer):
            found = _as_layer(layer, args, kwargs)
            if found is not None:
                twin, operand = found
                return twin(operand)
        return layer(*args, **kwargs)


class _Endless(dict[str, Any]):
    """Lists whose elements can be taken any number of times."""

    def __getitem__(self, key: str) -> Any:
        return list(super().__getitem__(key))


def _as_layer(layer: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """The Keras layer that computes what a TFOpLambda does, and its operand; None if there is none."""
    function = layer.get_config()["function"]
    rest = {key: value for key, value in kwargs.items() if key != "name" and value is not None}
    if function in _LAYERS and len(args) == 1 and not rest:
        kind, settings = _LAYERS[function]
        return getattr(keras.layers, kind)(name=layer.name, **settings), args[0]
    sign = _SCALAR.get(function)
    operands = [*args, *(rest.pop(key) for key in ("x", "y") if key in rest)]
    if sign is None or rest or len(operands) != 2:
        return None
    if not all(_is_symbolic(item) or _number(item) is not None for item in operands):
        return None
    return _arithmetic(sign, operands[0], operands[1], layer.name)


def _arithmetic(sign: str, a: Any, b: Any, name: str) -> tuple[Any, Any] | None:
    left, right = _number(a), _number(b)
    if left is None and right is None:
        same_rank = len(a.shape) == len(b.shape)
        return (getattr(keras.layers, _MERGE[sign])(name=name), [a, b]) if sign in _MERGE and same_rank else None
    if right is not None and left is None and not (sign == "/" and right == 0):
        scale, offset = {
            "+": lambda: (1.0, right),
            "-": lambda: (1.0, -right),
            "*": lambda: (right, 0.0),
            "/": lambda: (1.0 / right, 0.0),
        }[sign]()
        return keras.layers.Rescaling(scale, offset=offset, name=name), a
    if left is not None and right is None and sign != "/":
        scale, offset = {"+": (1.0, left), "-": (-1.0, left), "*": (left, 0.0)}[sign]
        return keras.layers.Rescaling(scale, offset=offset, name=name), b
    return None


def _number(value: Any) -> float | None:
    """A constant that is one number, None for anything else."""
    if _is_symbolic(value):
        return None
    array = np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else None
