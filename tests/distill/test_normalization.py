"""A student of a teacher whose normalization is folded away gets its own, and only then."""

from __future__ import annotations

import pytest

from edgemill.distill.narrow import narrow
from edgemill.tf import keras


def norms(model) -> int:
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def teacher(*, normalized: bool, activation: str):
    layers = keras.layers
    x = image = keras.Input((8, 8, 1))
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, padding="same", activation=activation)(x)
        x = layers.BatchNormalization()(x) if normalized else x
        x = layers.ReLU()(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("normalized", "activation", "expected"), [(False, "linear", 2), (True, "linear", 2), (False, "relu", 0)]
)
def test_normalization_of_the_student(normalized, activation, expected):
    student = narrow(teacher(normalized=normalized, activation=activation), 0.5)
    assert norms(student) == expected
    assert student.output_shape == (None, 4)
