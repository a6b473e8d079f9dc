"""The model under quantization as it will compute: weights on their grids, batch normalization folded, ranges fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.placement import KERNELS, QatModel
from edgemill.quantize.rewrite import rewrite
from edgemill.tf import keras, tf


class Grid(keras.layers.Layer):  # type: ignore[misc]
    """Round to an 8-bit grid.

    Args:
        low: smallest value of the range, at most 0.
        high: largest value.
    """

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, inputs: Any) -> Any:
        """Nearest values on the grid."""
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high, num_bits=8)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {"low": self.low, "high": self.high}


def freeze(qat: QatModel) -> Any:
    """A plain functional model of layers and `Grid`s that answers like `qat.model`.

    Every channel of a kernel lies on a grid whose largest magnitude is 127 steps, so that a
    converter which quantizes these weights for itself finds that very grid. Names of inputs and
    outputs are kept.
    """
    quantized = {id(wrapper): wrapper for wrapper in qat.wrappers}
    normalizations = {id(layer) for layer in qat.folds.values()}
    answers = set(qat.model.output_names)
    weights: list[tuple[Any, list[NDArray[Any]]]] = []

    def replace(layer: Any) -> list[Any]:
        if hasattr(layer, "quantizer_vars"):
            return [_grid(layer.quantizer_vars, layer.name)]
        wrapper = quantized.get(id(layer))
        inner = layer if wrapper is None else wrapper.layer
        grids = []
        name = inner.name
        if wrapper is not None and wrapper.quantize_config.activation is not None:
            name = f"{name}_exact" if name in answers else name
            grids = [_grid(wrapper._output_quantizer_vars, inner.name if name != inner.name else f"{name}_grid")]
        if id(layer) in normalizations:
            return grids or [keras.layers.Activation("linear", name=name)]
        if wrapper is not None and type(inner).__name__ in KERNELS:
            kernel, bias = _folded(wrapper, qat.folds.get(wrapper.name))
            if type(inner).__name__ == "Conv1D":
                before, copy, after = _as_conv2d(inner, name)
                weights.append((copy, [kernel[np.newaxis], bias]))
                return [before, copy, after, *grids]
            copy = type(inner).from_config(inner.get_config() | {"name": name, "use_bias": True})
            weights.append((copy, [kernel, bias]))
            return [copy, *grids]
        copy = type(inner).from_config(inner.get_config() | {"name": name})
        weights.append((copy, inner.get_weights()))
        return [copy, *grids]

    frozen = rewrite(qat.model, replace)
    for layer, values in weights:
        layer.set_weights(values)
    return frozen


def _grid(variables: Any, name: str) -> Grid:
    return Grid(float(variables["min_var"].numpy()), float(variables["max_var"].numpy()), name=name)


def _folded(wrapper: Any, normalization: Any | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel on its grid and bias of a wrapped layer, with the batch normalization behind it folded in."""
    ((variable, quantizer, ranges),) = wrapper._weight_vars
    kernel = quantizer(tf.convert_to_tensor(variable), False, ranges).numpy().astype(np.float64)
    channels = ranges["max_var"].shape[0]
    held = wrapper.layer.bias
    bias = np.zeros(channels) if held is None else held.numpy().astype(np.float64)
    if normalization is not None:
        layer = getattr(normalization, "layer", normalization)
        factor = 1 / np.sqrt(layer.moving_variance.numpy().astype(np.float64) + layer.epsilon)
        if layer.scale:
            factor *= layer.gamma.numpy()
        shape = [size if axis in quantizer.axes else 1 for axis, size in enumerate(kernel.shape)]
        kernel *= factor.reshape(shape)
        bias = (bias - layer.moving_mean.numpy()) * factor + (layer.beta.numpy() if layer.center else 0.0)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _as_conv2d(layer: Any, name: str) -> tuple[Any, Any, Any]:
    """Conv1D as a Conv2D over an image of height 1: what both runtimes have integer kernels for."""
    config = layer.get_config()
    _, length, channels = layer.input_shape
    copy = keras.layers.Conv2D(
        config["filters"],
        (1, *config["kernel_size"]),
        strides=(1, *config["strides"]),
        padding=config["padding"],
        dilation_rate=(1, *config["dilation_rate"]),
        groups=config["groups"],
        activation=config["activation"],
        name=name,
    )
    return (
        keras.layers.Reshape((1, length, channels), name=f"{name}_before"),
        copy,
        keras.layers.Reshape(layer.output_shape[1:], name=f"{name}_after"),
    )
