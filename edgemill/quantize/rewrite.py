"""Rebuild a functional tf_keras model with other layers in place of some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemill.errors import CheckpointError
from edgemill.tf import keras, tf


def rewrite(
    model: Any, replace: Callable[[Any], list[Any]], after_input: Callable[[str], list[Any]] | None = None
) -> Any:
    """A functional model like `model`, in which `replace(layer)` stands for every layer.

    Args:
        model: functional or sequential tf_keras model. A layer that is called twice stays one layer.
        replace: new layers that are applied one after another instead of the given one; none at all
            pass the input on.
        after_input: new layers to put behind the input of the given name.

    Raises:
        CheckpointError: the model is subclassed, so its graph is not known.
    """
    if not getattr(model, "_is_graph_network", False):
        raise CheckpointError(
            "Only functional and sequential Keras models can be trained under quantization.",
            where=model.name,
            got=type(model).__name__,
            remedy="rebuild it with the functional API, or use the scheme int8_static",
        )
    made: dict[int, list[Any]] = {}
    usage = model._tensor_usage_count
    tensors: dict[str, list[Any]] = {}
    inputs = []
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        value = keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name)
        inputs.append(value)
        for layer in [] if after_input is None else after_input(name):
            value = layer(value)
        tensors[str(id(tensor))] = [value] * usage[str(id(tensor))]
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.map_arguments(tensors)
            if id(node.layer) not in made:
                made[id(node.layer)] = replace(node.layer)
            layers = made[id(node.layer)]
            answer = layers[0](*args, **kwargs) if layers else args[0]
            for layer in layers[1:]:
                answer = layer(answer)
            for key, value in zip(node.flat_output_ids, tf.nest.flatten(answer), strict=True):
                tensors[key] = [value] * usage[key]
    outputs = [tensors[str(id(tensor))].pop() for tensor in model.outputs]
    return keras.Model(inputs, outputs, name=model.name)
