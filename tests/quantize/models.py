"""Small models and datasets that the tests of quantization share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.recipe import Preprocess
from edgemill.step import InputFile, StepContext


def digits(folder: Path) -> Dataset:
    """8 x 8 digits: 1000 train, 400 validation, 100 calibration (in validation), 397 test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, y = images[order].reshape(-1, 8, 8, 1).astype(np.uint8), labels[order].astype(np.int64)
    cuts = {
        SplitName.TRAIN: slice(0, 1000),
        SplitName.VALIDATION: slice(1000, 1400),
        SplitName.CALIBRATION: slice(1000, 1100),
        SplitName.TEST: slice(1400, None),
    }
    folder.mkdir(parents=True)
    write_dataset(folder, {k: x[v] for k, v in cuts.items()}, {k: y[v] for k, v in cuts.items()}, Preprocess(scale=16))
    return Dataset(folder)


def as_input(path: Path, kind: str) -> InputFile:
    artifact = Artifact(digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="test")
    return InputFile(path, artifact)


def context(folder: Path, seed: int = 0) -> StepContext:
    out, resume = folder / "out", folder / "resume"
    out.mkdir(parents=True)
    resume.mkdir()
    return StepContext(out, resume, seed, lambda fraction, message: None)


def residual(keras: Any) -> Any:
    """Residual Add, depthwise, ReLU6, batch normalization, max pooling, dense head."""
    layers = keras.layers
    entry = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(12, 3, padding="same", use_bias=False, name="stem")(entry)
    x = layers.BatchNormalization(momentum=0.7, name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(x)
    y = layers.BatchNormalization(momentum=0.7, name="depth_norm")(y)
    y = layers.ReLU(6.0, name="depth_relu6")(y)
    y = layers.Conv2D(12, 1, use_bias=False, name="point")(y)
    y = layers.BatchNormalization(momentum=0.7, name="point_norm")(y)
    x = layers.Add(name="sum")([x, y])
    x = layers.ReLU(name="sum_relu")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(16, 3, name="plain")(x)  # a bias, a ReLU layer, no normalization
    x = layers.ReLU(name="plain_relu")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(24, activation="relu", name="hidden")(x)
    return keras.Model(entry, layers.Dense(10, name="logits")(x), name="residual")


def mixed(keras: Any) -> Any:
    """Softmax output, swish, separable and transposed convolutions, Dense with normalization, concatenation."""
    layers = keras.layers
    entry = keras.Input((8, 8, 1), name="image")
    x = layers.SeparableConv2D(12, 3, padding="same", activation="swish", name="separable")(entry)
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu6", name="narrow")(x)
    y = layers.Conv2DTranspose(8, 2, strides=2, activation="relu", name="wide")(x)
    y = layers.AveragePooling2D(name="average")(y)
    x = layers.Concatenate(name="both")([x, y])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(24, use_bias=False, name="hidden")(x)
    x = layers.BatchNormalization(momentum=0.7, name="hidden_norm")(x)
    x = layers.Activation("relu", name="hidden_relu")(x)
    x = layers.Dropout(0.1, name="drop")(x)
    return keras.Model(entry, layers.Dense(10, activation="softmax", name="answer")(x), name="mixed")


def awkward(keras: Any) -> Any:
    """Layers that quantization-aware training leaves out: normalization first, a shared layer, Conv1D."""
    layers = keras.layers
    entry = keras.Input((8, 8, 1), name="image")
    x = layers.BatchNormalization(momentum=0.7, name="first_norm")(entry)
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    shared = layers.Dense(8, activation="relu", name="shared")
    x = shared(shared(x))
    x = layers.Reshape((36, 8), name="line")(x)
    x = layers.Conv1D(8, 3, activation="relu", name="conv1d")(x)
    x = layers.Flatten(name="flat")(x)
    return keras.Model(entry, layers.Dense(10, name="logits")(x), name="awkward")


def fit(model: Any, data: Dataset, keras: Any, epochs: int = 12) -> None:
    """Train a little, so that answers mean something."""
    softmax = getattr(model.layers[-1].activation, "__name__", "") == "softmax"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(data.features(SplitName.TRAIN), data.labels(SplitName.TRAIN), batch_size=64, epochs=epochs, verbose=0)
