"""Where the quantizers of quantization-aware training go, and the model that holds them.

tfmot's own layout transforms are not used: they drop the weight quantizer of a convolution that is
followed by a ReLU layer without batch normalization, and refuse a model for one unknown layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import QuantizeLayer
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import QuantizeWrapperV2

from edgemill.errors import CheckpointError
from edgemill.quantize.normal_form import KERNELS, Links, activation_of, normal_form, relu_of
from edgemill.quantize.quantizers import ActivationQuantizer, Placement, WeightQuantizer
from edgemill.quantize.rewrite import rewrite
from edgemill.tf import keras

# Layers whose answers are on the grid of their input, or that LiteRT keeps there.
_SAME_GRID = {
    "ActivityRegularization",
    "AveragePooling1D",
    "AveragePooling2D",
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
    "UpSampling1D",
    "UpSampling2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
}
# LiteRT gives the outputs of these fixed grids of its own.
_FIXED_GRID = {"softmax", "sigmoid", "tanh"}
_RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D"}
_NOT_SUPPORTED = {"TimeDistributed", "Embedding", "Lambda"}


@dataclass(frozen=True)
class QatModel:
    """A model under quantization.

    Attributes:
        model: functional tf_keras model that starts with the original's answers, rounded; names of
            inputs and outputs are the original's.
        wrappers: layers that hold quantizers, in graph order.
        grids: layers that only quantize: behind the model's inputs, and between a layer that stays float
            and one that does not.
        left_out: layers with weights that stay float, and why.
    """

    model: Any
    wrappers: tuple[Any, ...]
    grids: tuple[Any, ...]
    left_out: dict[str, str]


def build(original: Any) -> QatModel:
    """Put quantizers into a copy of a model, which is brought into its `normal_form` first.

    Weights get one scale per output channel, activations one scale per tensor, after the activation
    function and never between operators that a runtime fuses.

    Args:
        original: functional or sequential tf_keras model.

    Raises:
        CheckpointError: the model is subclassed, has recurrent layers, or nothing in it can be quantized.
    """
    plain = normal_form(original)
    _refuse_recurrent(plain)
    plans, left_out = plan(plain)
    if not any(item.weight is not None for item in plans.values()):
        raise CheckpointError(
            "No layer of the model can be trained under quantization.",
            where=original.name,
            expected=f"at least one of {', '.join(sorted(KERNELS))}",
            got=", ".join(sorted({type(layer).__name__ for layer in plain.layers})),
            remedy="use the schemes int8_static or int8_dynamic for this model",
        )
    wrappers: list[Any] = []
    grids: list[Any] = []
    links = Links(plain)

    def wrap(layer: Any) -> list[Any]:
        copy = type(layer).from_config(layer.get_config())
        if layer.weights:  # the wrapper takes the kernel out of the layer, so weights must be there before
            if not copy.built:
                copy.build(layer.get_input_shape_at(0))
            copy.set_weights(layer.get_weights())
        if layer.name not in plans:
            return [
                copy,
                *(quantize_only(layer.name) if _refusal(layer, links) and _feeds_kernel(layer, links) else []),
            ]
        wrappers.append(QuantizeWrapperV2(copy, plans[layer.name], name=layer.name))
        return [wrappers[-1]]

    def quantize_only(name: str) -> list[Any]:
        grids.append(QuantizeLayer(ActivationQuantizer(), name=f"{name}_grid"))
        return [grids[-1]]

    return QatModel(rewrite(plain, wrap, quantize_only), tuple(wrappers), tuple(grids), left_out)


def _refuse_recurrent(model: Any) -> None:
    """Said before the training: the LiteRT converter has no form of them beside quantized layers."""
    found = [layer.name for layer in model.submodules if type(layer).__name__ in _RECURRENT]
    if found:
        raise CheckpointError(
            "Recurrent layers cannot be trained under quantization.",
            where=", ".join(found),
            expected="convolutions, dense layers and what is between them",
            remedy="use the scheme int8_dynamic for this model",
        )


def plan(model: Any) -> tuple[dict[str, Placement], dict[str, str]]:
    """Placement for every layer that has one, and the layers with weights that stay float with the reason.

    Args:
        model: in normal form.
    """
    links = Links(model)
    plans: dict[str, Placement] = {}
    left_out: dict[str, str] = {}
    for layer in model.layers:
        kind = type(layer).__name__
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if reason := _refusal(layer, links):
            if layer.weights:
                left_out[layer.name] = reason
            continue
        kernel = KERNELS.get(kind)
        output = _quantizes_output(layer, links)
        if kernel is None and layer.weights:
            left_out[layer.name] = f"{kind} has no integer form here; its output is quantized"
        if kernel is not None:
            plans[layer.name] = Placement(kernel[0], WeightQuantizer(kernel[1]), output)
        elif output:
            plans[layer.name] = Placement(None, None, output)
    return plans, left_out


def _refusal(layer: Any, links: Links) -> str | None:
    """Why a layer cannot hold a quantizer, None if it can."""
    kind = type(layer).__name__
    if isinstance(layer, keras.Model):
        return "a model inside the model"
    if links.calls[layer.name] > 1:
        return f"{kind} is used {links.calls[layer.name]} times"
    if kind == "Conv1D":
        return "Conv1D with causal padding, channels first or free length"
    if kind in KERNELS and getattr(layer, "data_format", "channels_last") == "channels_first":
        return f"{kind} with channels first"
    if kind in _NOT_SUPPORTED or "Op" in kind or not isinstance(layer.output_shape, tuple):
        return f"{kind} is not supported by quantization-aware training"
    return None


def _quantizes_output(layer: Any, links: Links) -> bool:
    kind, activation = type(layer).__name__, activation_of(layer)
    if kind in _SAME_GRID or (kind == "Activation" and activation == "linear"):
        return False
    reader = links.only_consumer(layer)
    if reader is not None and relu_of(reader) is not None and _refusal(reader, links) is None:
        return False
    if kind == "Softmax" or (kind == "Activation" and activation in _FIXED_GRID):
        return _feeds_kernel(layer, links)
    return True


def _feeds_kernel(layer: Any, links: Links) -> bool:
    """Whether a layer has one answer, and something that computes with weights reads it."""
    readers = list(links.consumers.get(layer.name, []))
    seen: set[str] = set()
    while readers:
        reader = readers.pop()
        if type(reader).__name__ in KERNELS:
            return layer.name not in links.answers and isinstance(layer.get_output_shape_at(0), tuple)
        if type(reader).__name__ in _SAME_GRID and reader.name not in seen:
            seen.add(reader.name)
            readers += links.consumers.get(reader.name, [])
    return False
