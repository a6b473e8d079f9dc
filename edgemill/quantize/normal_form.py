"""Bring a Keras model into the form in which it computes on a device, before training under quantization.

Batch normalization is folded into the weights before it. With one scale per output channel this
changes no grid, and what is trained is then what computes: statistics of a few fine-tuning batches
never enter (Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference",
section 3.2.2, freezes them late in training for the same reason).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.rewrite import rewrite
from edgemill.tf import keras

# Attribute that holds the kernel, and its axes that count output channels.
KERNELS = {
    "Conv1D": ("kernel", (2,)),
    "Conv2D": ("kernel", (3,)),
    "Conv2DTranspose": ("kernel", (2,)),
    "Dense": ("kernel", (1,)),
    "DepthwiseConv2D": ("depthwise_kernel", (2, 3)),
}
_FUSED = {"linear", "relu", "relu6"}
_RELU6 = 6.0

Weights = list[tuple[Any, list[NDArray[Any]]]]


class Links:
    """Which layer reads whose output in a functional model."""

    def __init__(self, model: Any) -> None:
        self.producers: dict[str, list[Any]] = {}
        self.consumers: dict[str, list[Any]] = {}
        self.calls: Counter[str] = Counter()
        for nodes in model._nodes_by_depth.values():
            for node in nodes:
                self.calls[node.layer.name] += 1
                for source, *_ in [] if node.is_input else node.iterate_inbound():
                    self.consumers.setdefault(source.name, []).append(node.layer)
                    self.producers.setdefault(node.layer.name, []).append(source)
        self.answers = {tensor._keras_history.layer.name for tensor in model.outputs}

    def only_consumer(self, layer: Any) -> Any | None:
        """The layer that reads this one's output, if it is the only one and the output is not the model's."""
        readers = self.consumers.get(layer.name, [])
        return readers[0] if len(readers) == 1 and layer.name not in self.answers else None


def normal_form(model: Any) -> Any:
    """A functional model that answers like `model`, with its weights, made of fewer kinds of layers.

    Separable convolutions become a depthwise and a pointwise one, Conv1D a Conv2D over an image of
    height 1; batch normalization and ReLU go into the layer before them; activation functions that no
    runtime fuses become layers of their own. Names of inputs and outputs are kept.

    Raises:
        CheckpointError: the model is subclassed, so its graph is not known.
    """
    weights: Weights = []
    split = rewrite(model, lambda layer: _split(layer, weights))
    _fill(weights)
    links = Links(split)
    absorbed: dict[str, list[Any]] = {
        layer.name: _absorbable(layer, links)
        for layer in split.layers
        if type(layer).__name__ in KERNELS and links.calls[layer.name] == 1
    }
    gone = {item.name for items in absorbed.values() for item in items}
    weights = []
    fused = rewrite(
        split, lambda layer: [] if layer.name in gone else _absorb(layer, absorbed.get(layer.name), links, weights)
    )
    _fill(weights)
    return fused


def activation_of(layer: Any) -> str:
    """Name of a layer's activation function, `linear` where it has none."""
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", "linear" if activation is None else type(activation).__name__)


def relu_of(layer: Any) -> str | None:
    """`relu` or `relu6` if a layer is exactly that, else None."""
    if isinstance(layer, keras.layers.ReLU):
        if layer.negative_slope or layer.threshold or layer.max_value not in (None, _RELU6):
            return None
        return "relu" if layer.max_value is None else "relu6"
    if isinstance(layer, keras.layers.Activation) and activation_of(layer) in {"relu", "relu6"}:
        return activation_of(layer)
    return None


def _fill(weights: Weights) -> None:
    for layer, values in weights:
        layer.set_weights(values)


def _copy(layer: Any, weights: Weights, **changes: Any) -> Any:
    copy = type(layer).from_config(layer.get_config() | changes)
    weights.append((copy, layer.get_weights()))
    return copy


def _split(layer: Any, weights: Weights) -> list[Any]:
    kind, activation = type(layer).__name__, activation_of(layer)
    own = [keras.layers.Activation(layer.activation, name=f"{layer.name}_activation")] if activation != "linear" else []
    if kind == "SeparableConv2D":
        depthwise, pointwise = _separate(layer)
        values = layer.get_weights()
        weights += [(depthwise, values[:1]), (pointwise, values[1:])]
        return [depthwise, pointwise, *own]
    if kind in KERNELS and activation not in _FUSED:
        return [_copy(layer, weights, activation="linear"), *own]
    return [_copy(layer, weights)]


def _separate(layer: Any) -> tuple[Any, Any]:
    config = layer.get_config()
    shared = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "depth_multiplier")
    depthwise = keras.layers.DepthwiseConv2D(
        **{key: config[key] for key in shared}, use_bias=False, name=f"{layer.name}_depthwise"
    )
    pointwise = keras.layers.Conv2D(
        config["filters"],
        1,
        data_format=config["data_format"],
        use_bias=config["use_bias"],
        name=f"{layer.name}_pointwise",
    )
    return depthwise, pointwise


def _absorbable(layer: Any, links: Links) -> list[Any]:
    """Batch normalizations and at most one ReLU that directly follow a layer."""
    found: list[Any] = []
    last = layer
    while activation_of(layer) == "linear" and (reader := links.only_consumer(last)) is not None:
        if links.calls[reader.name] != 1:
            break
        relu = relu_of(reader)
        if relu is None and not (type(reader).__name__ == "BatchNormalization" and _channels_last(reader)):
            break
        found.append(reader)
        last = reader
        if relu is not None:
            break
    return found


def _channels_last(layer: Any) -> bool:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    return axis in (-1, len(layer.output_shape) - 1)


def _absorb(layer: Any, followers: list[Any] | None, links: Links, weights: Weights) -> list[Any]:
    if followers is None:
        return [_copy(layer, weights)]
    kernel, bias = folded(layer, [item for item in followers if relu_of(item) is None])
    last = followers[-1] if followers else layer
    config = {
        "name": last.name if last.name in links.answers else layer.name,
        "activation": relu_of(last) or activation_of(layer),
        "use_bias": True,
    }
    if type(layer).__name__ == "Conv1D" and _fits_2d(layer):
        before, image, after = _as_conv2d(layer, config)
        weights.append((image, [kernel[np.newaxis], bias]))
        return [before, image, after]
    copy = type(layer).from_config(layer.get_config() | config)
    weights.append((copy, [kernel, bias]))
    return [copy]


def folded(layer: Any, normalizations: list[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of a layer with the batch normalizations behind it folded in."""
    attribute, axes = KERNELS[type(layer).__name__]
    kernel = getattr(layer, attribute).numpy().astype(np.float64)
    shape = [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)]
    bias = np.zeros(int(np.prod(shape))) if layer.bias is None else layer.bias.numpy().astype(np.float64)
    for item in normalizations:
        factor = 1 / np.sqrt(item.moving_variance.numpy().astype(np.float64) + item.epsilon)
        if item.scale:
            factor *= item.gamma.numpy()
        kernel *= factor.reshape(shape)
        bias = (bias - item.moving_mean.numpy()) * factor + (item.beta.numpy() if item.center else 0.0)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _fits_2d(layer: Any) -> bool:
    known = None not in (*layer.input_shape[1:], *layer.output_shape[1:])
    return bool(known and layer.padding != "causal" and layer.data_format == "channels_last")


def _as_conv2d(layer: Any, config: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Conv1D over an image of height 1: what runtimes have integer kernels for, and the converters agree on."""
    old = layer.get_config()
    image = keras.layers.Conv2D(
        old["filters"],
        (1, *old["kernel_size"]),
        strides=(1, *old["strides"]),
        padding=old["padding"],
        dilation_rate=(1, *old["dilation_rate"]),
        groups=old["groups"],
        activation=config["activation"],
        name=f"{config['name']}_image",
    )
    before = keras.layers.Reshape((1, *layer.input_shape[1:]), name=f"{config['name']}_before")
    return before, image, keras.layers.Reshape(layer.output_shape[1:], name=config["name"])
