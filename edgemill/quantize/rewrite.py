"""Rebuild a functional tf_keras model, layer by layer, with other layers in place of some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemill.errors import CheckpointError
from edgemill.tf import keras, tf

_FUSED = {"linear", "relu", "relu6"}
_WITH_ACTIVATION = ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D", "Dense")


def rewrite(
    model: Any, replace: Callable[[Any], list[Any]] | None = None, after_input: Callable[[str], Any] | None = None
) -> Any:
    """A functional model like `model`, in which `replace(layer)` stands for every layer.

    Without `replace`, the model is brought into the form that quantization needs, weights included:
    separable convolutions become a depthwise and a pointwise one, and activation functions that no
    runtime fuses become layers of their own.

    Args:
        model: functional or sequential tf_keras model. A layer that is called twice stays one layer.
        replace: layers that are applied one after another instead of the given one.
        after_input: layer to put behind the input of the given name.

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
    weights: list[tuple[Any, list[Any]]] = []
    made: dict[int, list[Any]] = {}
    choose = replace or (lambda layer: _normal_form(layer, weights))
    usage = model._tensor_usage_count
    tensors: dict[str, list[Any]] = {}
    inputs = []
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        fresh = keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name)
        inputs.append(fresh)
        value = fresh if after_input is None else after_input(name)(fresh)
        tensors[str(id(tensor))] = [value] * usage[str(id(tensor))]
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.map_arguments(tensors)
            layers = made.setdefault(id(node.layer), choose(node.layer) if id(node.layer) not in made else [])
            answer = layers[0](*args, **kwargs)
            for layer in layers[1:]:
                answer = layer(answer)
            for key, value in zip(node.flat_output_ids, tf.nest.flatten(answer), strict=True):
                tensors[key] = [value] * usage[key]
    outputs = [tensors[str(id(tensor))].pop() for tensor in model.outputs]
    rebuilt = keras.Model(inputs, outputs, name=model.name)
    for layer, values in weights:
        layer.set_weights(values)
    return rebuilt


def _normal_form(layer: Any, weights: list[tuple[Any, list[Any]]]) -> list[Any]:
    config = layer.get_config()
    kind = type(layer).__name__
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if kind == "SeparableConv2D":
        depthwise, pointwise = _separate(layer, config)
        values = layer.get_weights()
        weights += [(depthwise, values[:1]), (pointwise, values[1:])]
        return [depthwise, pointwise, *_activation_layer(layer, activation)]
    split = kind in _WITH_ACTIVATION and activation not in _FUSED
    copy = type(layer).from_config(config | {"activation": "linear"} if split else config)
    weights.append((copy, layer.get_weights()))
    return [copy, *(_activation_layer(layer, activation) if split else [])]


def _activation_layer(layer: Any, activation: str) -> list[Any]:
    if activation == "linear":
        return []
    return [keras.layers.Activation(layer.activation, name=f"{layer.name}_activation")]


def _separate(layer: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    depthwise = keras.layers.DepthwiseConv2D(
        kernel_size=config["kernel_size"],
        strides=config["strides"],
        padding=config["padding"],
        data_format=config["data_format"],
        dilation_rate=config["dilation_rate"],
        depth_multiplier=config["depth_multiplier"],
        use_bias=False,
        name=f"{layer.name}_depthwise",
    )
    pointwise = keras.layers.Conv2D(
        config["filters"],
        1,
        data_format=config["data_format"],
        use_bias=config["use_bias"],
        name=f"{layer.name}_pointwise",
    )
    return depthwise, pointwise
