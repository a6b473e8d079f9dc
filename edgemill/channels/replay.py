"""Replay the graph of a functional tf_keras model, with something else in the place of every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgemill.errors import CheckpointError
from edgemill.tf import keras, tf

Call = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""`call(layer, args, kwargs)`: the outputs in the place of `layer(*args, **kwargs)`."""


def replay(model: Any, inputs: Sequence[Any], call: Call, descend: bool = True) -> list[Any]:
    """Follow the calls of a model in order.

    Args:
        model: functional or sequential tf_keras model, possibly with nested models.
        inputs: one value for every input of the model; of any type that `tf.nest` takes for a leaf.
        call: stands for every layer.
        descend: follow nested models as well; otherwise `call` gets them like layers.

    Returns:
        the values of the model's outputs.

    Raises:
        CheckpointError: the model is subclassed, so its graph is not known.
    """
    if not is_graph(model):
        raise CheckpointError(
            "The model's graph is not known.",
            where=model.name,
            expected="a functional or sequential Keras model",
            got=type(model).__name__,
            remedy="rebuild it with the functional API",
        )
    uses = model._tensor_usage_count
    values = {str(id(t)): [v] * uses[str(id(t))] for t, v in zip(model.inputs, inputs, strict=True)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input or any(key not in values for key in node.flat_input_ids):
                continue
            args, kwargs = node.map_arguments(values)
            if descend and is_graph(node.layer):
                outputs: Any = replay(node.layer, tf.nest.flatten(args), call)
            else:
                outputs = call(node.layer, args, kwargs)
            for key, value in zip(node.flat_output_ids, tf.nest.flatten(outputs), strict=True):
                values[key] = [value] * uses[key]
    return [values[str(id(tensor))].pop() for tensor in model.outputs]


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose graph is known."""
    return isinstance(layer, keras.Model) and bool(getattr(layer, "_is_graph_network", False))
