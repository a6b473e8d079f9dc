"""Quantizers of quantization-aware training: tfmot's, started from calibration instead of from [-6, 6]."""

from __future__ import annotations

import math
from typing import Any

import tensorflow_model_optimization as tfmot

from edgemill.tf import tf

# Range of a tensor that was 0 on all calibration samples: any that is not empty would do.
_DEAD = 1e-5


class ActivationQuantizer(tfmot.quantization.keras.quantizers.MovingAverageQuantizer):  # type: ignore[misc]
    """Range of an activation: observed on calibration samples, then tfmot's moving average in training.

    A minimum that starts at exactly 0 stays there as long as no sample is negative, because
    0.999 * 0 + 0.001 * 0 = 0. This is what lets a runtime absorb the ReLU before it.
    """

    def __init__(self) -> None:
        super().__init__(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)
        self.observing = False

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Quantize, or while `observing` widen the range to hold `inputs` and pass them on unchanged."""
        if not self.observing:
            return super().__call__(inputs, training, weights, **kwargs)
        weights["min_var"].assign(tf.minimum(weights["min_var"], tf.reduce_min(inputs)))
        weights["max_var"].assign(tf.maximum(weights["max_var"], tf.reduce_max(inputs)))
        return inputs

    def get_config(self) -> dict[str, Any]:
        """No settings."""
        return {}


def reset(ranges: Any) -> None:
    """Make a range almost empty, to be widened by observing. It always holds 0."""
    ranges["min_var"].assign(tf.zeros_like(ranges["min_var"]))
    ranges["max_var"].assign(tf.fill(ranges["max_var"].shape, _DEAD))


class WeightQuantizer(tfmot.quantization.keras.quantizers.Quantizer):  # type: ignore[misc]
    """int8 weights in [-127, 127] steps with zero point 0, one step for each output channel.

    The step follows the weights: their largest magnitude is 127 steps, as the LiteRT converter and
    onnxruntime have it. tfmot has one step per tensor for depthwise and dense kernels.

    Args:
        axes: of the kernel that count output channels, neighbours.
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def build(self, tensor_shape: Any, name: str, layer: Any) -> dict[str, Any]:
        """Largest magnitude of every channel, as a variable of the layer."""
        shape = (math.prod(int(tensor_shape[axis]) for axis in self.axes),)
        return {"max_var": layer.add_weight(f"{name}_max", shape=shape, initializer="ones", trainable=False)}

    def __call__(self, inputs: Any, training: Any, weights: Any, **kwargs: Any) -> Any:
        """Quantize; in training the steps are set from the weights first."""
        others = [axis for axis in range(len(inputs.shape)) if axis not in self.axes]
        order = [*others, *self.axes]
        moved = tf.transpose(inputs, order)
        rows = tf.reshape(moved, [-1, weights["max_var"].shape[0]])
        top = weights["max_var"].assign(tf.reduce_max(tf.abs(rows), axis=0)) if training else weights["max_var"]
        quantized = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            rows, -top, top, num_bits=8, narrow_range=True
        )
        back = [order.index(axis) for axis in range(len(order))]
        return tf.transpose(tf.reshape(quantized, moved.shape), back)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"axes": self.axes}


class Placement(tfmot.quantization.keras.QuantizeConfig):  # type: ignore[misc]
    """What of one layer is quantized.

    Args:
        weight: attribute of the kernel, None where there is none.
        quantizer: of the kernel.
        output: whether the layer's output is quantized (after its activation).
    """

    def __init__(self, weight: str | None, quantizer: WeightQuantizer | None, output: bool) -> None:
        self.weight = weight
        self.quantizer = quantizer
        self.activation = ActivationQuantizer() if output else None

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """The kernel with its quantizer."""
        return [] if self.weight is None else [(getattr(layer, self.weight), self.quantizer)]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        """Nothing: the output quantizer sees the activation's result."""
        return []

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        """Put the quantized kernel in the layer for the current call."""
        if self.weight is not None:
            setattr(layer, self.weight, quantize_weights[0])

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        """Nothing to set."""

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        """The output's quantizer, if any."""
        return [] if self.activation is None else [self.activation]

    def get_config(self) -> dict[str, Any]:
        """Not stored: a quantization-aware model lives only while its step runs."""
        return {}
