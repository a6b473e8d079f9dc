"""Built-in students, after the reference models of MLPerf Tiny v1.0 (Banbury et al. 2021).

Each is adapted to the input shape and the output count of the teacher: fewer strides on small
inputs, and an end that answers in the same form (softmax, sigmoid or linear).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from edgemill.distill.narrow import narrowed
from edgemill.errors import RecipeError
from edgemill.recipe import Family
from edgemill.tf import keras
from edgemill.train.augment import channels_first

_MOMENTUM = 0.9
_SMALLEST = 4
_IMAGE = 3
_BLOCKS_MOBILENET = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))


def build(
    family: Family, input_shape: tuple[int, ...], output_shape: tuple[int, ...], width: float, activation: str
) -> Any:
    """A freshly initialised tf_keras model.

    Args:
        family: which architecture.
        input_shape: one sample, (H, W), (H, W, C) or (C, H, W); any shape for mlp_autoencoder.
        output_shape: one answer; (classes,) for the image families.
        width: factor on the channel counts of the MLPerf Tiny model, in (0, 1].
        activation: keras name of the final activation.

    Raises:
        RecipeError: the family does not fit these shapes.
    """
    inputs = keras.Input(input_shape, name="input")
    if family is Family.MLP_AUTOENCODER:
        x = _mlp_autoencoder(inputs, width)
    else:
        if len(output_shape) != 1:
            raise _misfit(family, "one score per class", f"output shape {output_shape}")
        body: dict[Family, Callable[[Any, float], Any]] = {
            Family.RESNET8: _resnet8,
            Family.DS_CNN: _ds_cnn,
            Family.MOBILENET_V1: _mobilenet_v1,
        }
        x = body[family](_as_image(inputs, input_shape, family), width)
    x = keras.layers.Dense(math.prod(output_shape), name="head")(x)
    if len(output_shape) > 1:
        x = keras.layers.Reshape(output_shape, name="answer_shape")(x)
    if activation != "linear":
        x = keras.layers.Activation(activation, name="answer")(x)
    return keras.Model(inputs, x, name=str(family))


def _misfit(family: Family, expected: str, got: str) -> RecipeError:
    return RecipeError(
        f"The family {family} does not fit the model.",
        where="stages.distill.student.family",
        expected=expected,
        got=got,
    )


def _as_image(inputs: Any, shape: tuple[int, ...], family: Family) -> Any:
    """The input as (N, H, W, C)."""
    if len(shape) == _IMAGE - 1:
        return keras.layers.Reshape((*shape, 1), name="image")(inputs)
    if len(shape) != _IMAGE:
        raise _misfit(family, "samples of shape (H, W), (H, W, C) or (C, H, W)", f"input shape {shape}")
    return keras.layers.Permute((2, 3, 1), name="image")(inputs) if channels_first(shape) else inputs


def _stride(x: Any, wanted: int) -> int:
    """The wanted stride where the map stays at least 4 x 4."""
    return wanted if min(x.shape[1:3]) >= wanted * _SMALLEST else 1


def _normed(x: Any, relu: bool = True) -> Any:
    x = keras.layers.BatchNormalization(momentum=_MOMENTUM)(x)
    return keras.layers.ReLU()(x) if relu else x


def _conv(x: Any, filters: int, kernel: int | tuple[int, int], stride: int = 1, relu: bool = True) -> Any:
    x = keras.layers.Conv2D(
        filters, kernel, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return _normed(x, relu)


def _separable(x: Any, filters: int, stride: int = 1) -> Any:
    x = keras.layers.DepthwiseConv2D(
        3, strides=stride, padding="same", use_bias=False, depthwise_initializer="he_normal"
    )(x)
    return _conv(_normed(x), filters, 1)


def _resnet8(x: Any, width: float) -> Any:
    x = _conv(x, narrowed(16, width), 3)
    for filters, wanted in ((16, 1), (32, 2), (64, 2)):
        stride, channels = _stride(x, wanted), narrowed(filters, width)
        branch = _conv(_conv(x, channels, 3, stride), channels, 3, relu=False)
        if stride != 1 or x.shape[-1] != channels:
            x = keras.layers.Conv2D(channels, 1, strides=stride, padding="same", kernel_initializer="he_normal")(x)
        x = keras.layers.ReLU()(keras.layers.Add()([x, branch]))
    return keras.layers.GlobalAveragePooling2D()(x)


def _ds_cnn(x: Any, width: float) -> Any:
    channels = narrowed(64, width)
    x = _conv(x, channels, (min(10, x.shape[1]), min(4, x.shape[2])), _stride(x, 2))
    x = keras.layers.Dropout(0.2)(x)
    for _ in range(4):
        x = _separable(x, channels)
    x = keras.layers.Dropout(0.4)(x)
    return keras.layers.GlobalAveragePooling2D()(x)


def _mobilenet_v1(x: Any, width: float) -> Any:
    """The 0.25 MobileNet (Howard et al. 2017) of MLPerf Tiny; `width` scales it further."""
    x = _conv(x, narrowed(8, width), 3, _stride(x, 2))
    for filters, wanted in _BLOCKS_MOBILENET:
        x = _separable(x, narrowed(filters, width), _stride(x, wanted))
    return keras.layers.GlobalAveragePooling2D()(x)


def _mlp_autoencoder(x: Any, width: float) -> Any:
    if len(x.shape) > 2:
        x = keras.layers.Flatten()(x)
    for units in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = keras.layers.Dense(narrowed(units, width), use_bias=False, kernel_initializer="he_normal")(x)
        x = _normed(x)
    return x
