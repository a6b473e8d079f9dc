"""The model under quantization as it will compute: weights on their grids, ranges fixed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgemill.quantize.placement import QatModel
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
        return {**super().get_config(), "low": self.low, "high": self.high}


def freeze(qat: QatModel) -> Any:
    """A plain functional model of layers and `Grid`s that answers like `qat.model`.

    Every channel of a kernel lies on a grid whose largest magnitude is 127 steps, so that a
    converter which quantizes these weights for itself finds that very grid. Names of inputs and
    outputs are kept.
    """
    quantized = {id(wrapper) for wrapper in qat.wrappers}
    answers = set(qat.model.output_names)
    weights: list[tuple[Any, list[NDArray[Any]]]] = []

    def replace(layer: Any) -> list[Any]:
        if hasattr(layer, "quantizer_vars"):
            return [_grid(layer.quantizer_vars, layer.name)]
        if id(layer) not in quantized:
            copy = type(layer).from_config(layer.get_config())
            weights.append((copy, layer.get_weights()))
            return [copy]
        inner, name = layer.layer, layer.name
        grids = []
        if layer.quantize_config.activation is not None:
            exact, rounded = (f"{name}_exact", name) if name in answers else (name, f"{name}_grid")
            name = exact
            grids = [_grid(layer._output_quantizer_vars, rounded)]
        copy = type(inner).from_config(inner.get_config() | {"name": name})
        weights.append((copy, _on_grid(layer) if layer._weight_vars else inner.get_weights()))
        return [copy, *grids]

    frozen = rewrite(qat.model, replace)
    for layer, values in weights:
        layer.set_weights(values)
    return frozen


def _grid(variables: Any, name: str) -> Grid:
    return Grid(float(variables["min_var"].numpy()), float(variables["max_var"].numpy()), name=name)


def _on_grid(wrapper: Any) -> list[NDArray[Any]]:
    """Weights of a wrapped layer, the kernel rounded to its grid."""
    ((variable, quantizer, ranges),) = wrapper._weight_vars
    kernel = quantizer(tf.convert_to_tensor(variable), False, ranges).numpy()
    bias = wrapper.layer.bias
    return [kernel] if bias is None else [kernel, bias.numpy()]
