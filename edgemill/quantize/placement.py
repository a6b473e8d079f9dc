"""Where the quantizers of quantization-aware training go, and the model that holds them.

tfmot's own layout transforms are not used: they drop the weight quantizer of a convolution that is
followed by a ReLU layer without batch normalization, and refuse a model for one unknown layer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from edgemill.errors import CheckpointError
from edgemill.quantize.quantizers import ActivationQuantizer, Placement, WeightQuantizer
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
# Layers that only move values: what was on a grid stays on it.
_MOVES = {
    "ActivityRegularization",
    "Cropping1D",
    "Cropping2D",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "Permute",
    "RepeatVector",
    "Reshape",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
}
# LiteRT gives the outputs of these fixed grids of its own.
_FIXED = {"softmax", "sigmoid", "tanh"}
_STATELESS_RELU = {"relu", "relu6"}
_OWN_GRAPH = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "TimeDistributed", "Embedding", "Lambda"}


@dataclass(frozen=True)
class QatModel:
    """A model under quantization.

    Attributes:
        model: functional tf_keras model with the original's weights, names of layers, inputs and outputs.
        wrappers: layers that hold quantizers, in graph order.
        inputs: quantizers of the model's inputs.
        left_out: layers with weights that stay float, and why.
        folds: batch normalization by the name of the layer whose weights it is to be folded into.
    """

    model: Any
    wrappers: tuple[Any, ...]
    inputs: tuple[Any, ...]
    left_out: dict[str, str]
    folds: dict[str, Any]


def build(original: Any) -> QatModel:
    """Put quantizers into a copy of a model.

    Weights get one scale per output channel, activations one scale per tensor, after the activation
    function and never between operators that a runtime fuses.

    Args:
        original: functional or sequential tf_keras model.

    Raises:
        CheckpointError: the model is subclassed, or nothing in it can be quantized.
    """
    functional = rewrite(original)
    plans, left_out = plan(functional)
    if not any(item.weight is not None for item in plans.values()):
        raise CheckpointError(
            "No layer of the model can be trained under quantization.",
            where=original.name,
            expected=f"at least one of {', '.join(sorted(KERNELS))}",
            got=", ".join(sorted({type(layer).__name__ for layer in functional.layers})),
            remedy="use the schemes int8_static or int8_dynamic for this model",
        )
    wrappers: list[Any] = []
    inputs: list[Any] = []

    def wrap(layer: Any) -> list[Any]:
        copy = type(layer).from_config(layer.get_config())
        if layer.weights:  # the wrapper takes the kernel out of the layer, so weights must be there before
            if not copy.built:
                copy.build(layer.input_shape)
            copy.set_weights(layer.get_weights())
        if layer.name not in plans:
            return [copy]
        wrapper = QuantizeWrapperV2(copy, plans[layer.name], name=layer.name)
        wrappers.append(wrapper)
        return [wrapper]

    def quantize_input(name: str) -> Any:
        inputs.append(QuantizeLayer(ActivationQuantizer(), name=f"{name}_grid"))
        return inputs[-1]

    model = rewrite(functional, wrap, quantize_input)
    graph = _Graph(functional)
    folds = {
        graph.producers[layer.name][0].name: model.get_layer(layer.name)
        for layer in functional.layers
        if graph.is_folded(layer)
    }
    return QatModel(model, tuple(wrappers), tuple(inputs), left_out, folds)


def plan(model: Any) -> tuple[dict[str, Placement], dict[str, str]]:
    """Placement for every layer that has one, and the layers with weights that stay float with the reason.

    Args:
        model: functional, as `rewrite` returns it.
    """
    graph = _Graph(model)
    plans: dict[str, Placement] = {}
    left_out: dict[str, str] = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if reason := graph.refusal(layer):
            if layer.weights:
                left_out[layer.name] = reason
            continue
        kernel = KERNELS.get(kind)
        output = graph.quantizes_output(layer)
        if kernel is None and layer.weights and not graph.is_folded(layer):
            left_out[layer.name] = f"{kind} has no integer form here; its output is quantized"
        if kernel is not None:
            plans[layer.name] = Placement(kernel[0], WeightQuantizer(kernel[1]), output)
        elif output:
            plans[layer.name] = Placement(None, None, output)
    return plans, left_out


class _Graph:
    """Who reads whose output."""

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

    def refusal(self, layer: Any) -> str | None:
        """Why a layer cannot hold a quantizer, None if it can."""
        kind = type(layer).__name__
        if isinstance(layer, keras.Model):
            return "a model inside the model"
        if self.calls[layer.name] > 1:
            return f"{kind} is used {self.calls[layer.name]} times"
        if kind == "Conv1D" and (layer.padding == "causal" or None in layer.output_shape[1:]):
            return "Conv1D with causal padding or free length"
        if kind in KERNELS and getattr(layer, "data_format", None) == "channels_first":
            return f"{kind} with channels first"
        if kind in _OWN_GRAPH or "Op" in kind or not isinstance(layer.output_shape, tuple):
            return f"{kind} is not supported by quantization-aware training"
        return None

    def only_consumer(self, layer: Any) -> Any | None:
        readers = self.consumers.get(layer.name, [])
        return readers[0] if len(readers) == 1 and layer.name not in self.answers else None

    def is_folded(self, layer: Any) -> bool:
        """Whether this is a batch normalization that disappears into the weights before it."""
        sources = self.producers.get(layer.name, [])
        return (
            type(layer).__name__ == "BatchNormalization"
            and len(sources) == 1
            and type(sources[0]).__name__ in KERNELS
            and _activation(sources[0]) == "linear"
            and self.only_consumer(sources[0]) is layer
            and _last_axis(layer)
        )

    def quantizes_output(self, layer: Any) -> bool:
        kind = type(layer).__name__
        if kind in _MOVES or (_activation(layer) == "linear" and kind == "Activation"):
            return False
        reader = self.only_consumer(layer)
        if reader is not None and (self.is_folded(reader) or (is_relu(reader) and self.refusal(reader) is None)):
            return False
        if kind == "Softmax" or (kind == "Activation" and _activation(layer) in _FIXED):
            return any(type(item).__name__ in KERNELS for item in self.consumers.get(layer.name, []))
        return True


def _activation(layer: Any) -> str:
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", "linear" if activation is None else type(activation).__name__)


def is_relu(layer: Any) -> bool:
    """Whether a layer is a ReLU, clipped or not, that a runtime absorbs into the operator before it."""
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope and not layer.threshold
    return isinstance(layer, keras.layers.Activation) and _activation(layer) in _STATELESS_RELU


def _last_axis(layer: Any) -> bool:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    return axis in (-1, len(layer.output_shape) - 1)
