"""Follow the channels of a model from layer to layer, and find which go together.

The idea is DepGraph's (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning", section 3): removing
a channel of one layer forces others to go. There, layers depend on layers; here every single channel of
every tensor has a number, and what must go together is joined, so that Concatenate, Flatten and Reshape
need no index arithmetic of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgemill.channels import kernel_rules, shape_rules
from edgemill.channels.atoms import Indices
from edgemill.channels.book import Book, CannotFollowError, Flow, Value, along_last
from edgemill.channels.replay import replay
from edgemill.tf import keras, tf

Rule = Callable[[Book, Any, list[Value], list[Any]], list[Flow]]

_RULES: dict[str, Rule] = {
    "BatchNormalization": kernel_rules.batch_normalization,
    "Conv1D": kernel_rules.convolution,
    "Conv1DTranspose": kernel_rules.transposed,
    "Conv2D": kernel_rules.convolution,
    "Conv2DTranspose": kernel_rules.transposed,
    "Dense": kernel_rules.dense,
    "DepthwiseConv1D": kernel_rules.depthwise,
    "DepthwiseConv2D": kernel_rules.depthwise,
    "Embedding": kernel_rules.embedding,
    "GroupNormalization": kernel_rules.group_normalization,
    "LayerNormalization": kernel_rules.layer_normalization,
    "PReLU": kernel_rules.prelu,
    "SeparableConv1D": kernel_rules.separable,
    "SeparableConv2D": kernel_rules.separable,
    "Activation": shape_rules.activation,
    "Concatenate": shape_rules.concatenate,
    "Flatten": shape_rules.flatten,
    "Permute": shape_rules.permute,
    "RepeatVector": shape_rules.repeat,
    "Rescaling": shape_rules.rescaling,
    "Reshape": shape_rules.reshape,
    "Softmax": shape_rules.softmax,
    "UnitNormalization": shape_rules.unit_normalization,
    **dict.fromkeys(
        (
            "ActivityRegularization", "AlphaDropout", "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "Identity",
            "LeakyReLU", "ReLU", "SpatialDropout1D", "SpatialDropout2D", "ThresholdedReLU",
        ),
        shape_rules.same,
    ),
    **dict.fromkeys(
        (
            "AveragePooling1D", "AveragePooling2D", "Cropping1D", "Cropping2D", "GlobalAveragePooling1D",
            "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "MaxPooling1D", "MaxPooling2D",
            "UpSampling1D", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D",
        ),
        shape_rules.spatial,
    ),
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), shape_rules.merge),
}  # fmt: skip
_UNARY = frozenset(
    {
        "identity", "math.sigmoid", "math.softplus", "math.tanh", "nn.elu", "nn.gelu", "nn.leaky_relu", "nn.relu",
        "nn.relu6", "nn.selu", "nn.silu", "nn.softplus", "nn.softsign", "nn.swish", "nn.tanh",
    }
)  # fmt: skip
_BINARY = frozenset(
    {
        "__operators__.add", "math.add", "math.maximum", "math.minimum", "math.multiply", "math.subtract",
        "math.truediv",
    }
)  # fmt: skip
_INPUT = "they are the model's input"
_ANSWER = "they are the model's answer"


def trace(model: Any, sample_shape: tuple[int, ...]) -> Book:
    """Follow all channels of a model.

    Args:
        model: functional or sequential tf_keras model with one input, possibly with nested models.
        sample_shape: of one sample, without batch; used where the model leaves sizes free.

    Returns:
        which channels go together or stay, and what is to be cut with them.

    Raises:
        CheckpointError: the model is subclassed, so its graph is not known.
    """
    book = Book()
    source = tf.zeros((1, *sample_shape), model.inputs[0].dtype)
    channels = book.atoms.new(int(source.shape[-1]), _INPUT)

    def call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = [item for item in tf.nest.flatten((args, kwargs)) if isinstance(item, Value)]
        real, named = tf.nest.map_structure(
            lambda item: item.tensor if isinstance(item, Value) else item, (args, kwargs)
        )
        outputs = layer(*real, **named)
        flat = tf.nest.flatten(outputs)
        return [Value(t, f) for t, f in zip(flat, _flows(book, layer, values, flat, (args, kwargs)), strict=True)]

    for answer in replay(model, [Value(source, along_last(source, channels))], call):
        book.atoms.freeze(answer.flow.atoms, _ANSWER, instead=True)
    return book


def is_followed(layer: Any) -> bool:
    """Whether there is a rule for layers of exactly this class, so that it can be made anew from its configuration."""
    name = type(layer).__name__
    return name in _RULES and type(layer) is getattr(keras.layers, name, None)


def _flows(book: Book, layer: Any, inputs: list[Value], outputs: list[Any], arguments: Any) -> list[Flow]:
    try:
        if any(value.flow.axis == 0 for value in inputs):
            raise CannotFollowError(f"{layer.name} ({type(layer).__name__}) takes a tensor without channels")
        if is_followed(layer):
            return _RULES[type(layer).__name__](book, layer, inputs, outputs)
        if type(layer).__name__ == "TFOpLambda":
            return _operation(book, layer, inputs, outputs, arguments)
        raise CannotFollowError(f"layers like {layer.name} ({type(layer).__name__}) are not followed")
    except CannotFollowError as error:
        reason = str(error)
        book.freeze_layer(layer, reason)
        for value in inputs:
            book.atoms.freeze(value.flow.atoms, reason)
        return [along_last(tensor, _fixed(book, tensor, reason)) for tensor in outputs]


def _fixed(book: Book, tensor: Any, reason: str) -> Indices:
    return book.atoms.new(int(tensor.shape[-1]) if len(tensor.shape) > 1 else 0, reason)


def _operation(book: Book, layer: Any, inputs: list[Value], outputs: list[Any], arguments: Any) -> list[Flow]:
    """`x + y`, `tf.nn.relu(x)` and the like, written as functions."""
    function = layer.get_config()["function"]
    constants = [item for item in tf.nest.flatten(arguments) if not isinstance(item, (Value, str, type(None)))]
    if all(np.size(item) == 1 for item in constants):
        if function in _UNARY | _BINARY and len(inputs) == 1:
            return [inputs[0].flow]
        if function in _BINARY - {"math.truediv"} and len(inputs) == 2:
            return shape_rules.merge(book, layer, inputs, outputs)
    raise CannotFollowError(f"the operation {function} is not followed")
