"""A small real dataset, a trained teacher, and a step context, for the tests of everything that trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from edgemill.artifact import Artifact, digest_text
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.recipe import Preprocess
from edgemill.step import InputFile, StepContext

SPLITS = {
    SplitName.TRAIN: slice(0, 1200),
    SplitName.VALIDATION: slice(1200, 1500),
    SplitName.CALIBRATION: slice(1500, 1600),
    SplitName.TEST: slice(1600, None),
}


def write_digits(folder: Path, change=lambda x: x, labelled: bool = True) -> Path:
    """UCI digits, 8 x 8 x 1, 0..16, in four splits; `change` alters the samples."""
    source = load_digits()
    order = np.random.default_rng(0).permutation(len(source.images))
    x = change(source.images[order][..., None].astype(np.float32))
    y = source.target[order].astype(np.int64)
    folder.mkdir(parents=True)
    labels = {split: y[part] for split, part in SPLITS.items()} if labelled else None
    write_dataset(folder, {split: x[part] for split, part in SPLITS.items()}, labels, Preprocess(scale=16))
    return folder


def context(folder: Path, seed: int = 3) -> StepContext:
    """A context whose messages are collected in `context.report.messages`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "resume").mkdir(exist_ok=True)

    def report(fraction: float | None, message: str) -> None:
        report.messages.append((fraction, message))

    report.messages = []
    return StepContext(folder / "out", folder / "resume", seed, report)


def given(path: Path, kind: str) -> InputFile:
    """A file as the input of a step."""
    digest = digest_text(str(path))
    return InputFile(path, Artifact(digest=digest, filename=path.name, kind=kind, size_bytes=1, step="test"))


def convnet(activation: str | None = "softmax", dropout: float = 0.0):
    """A small residual network with batch normalization, fresh."""
    from edgemill.tf import keras

    layers = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(momentum=0.9, name="stem_bn")(x)
    x = stem = layers.ReLU(name="stem_relu")(x)
    x = layers.Conv2D(16, 3, padding="same", name="block_conv")(x)
    x = layers.BatchNormalization(momentum=0.9, name="block_bn")(x)
    x = layers.ReLU(name="block_relu")(layers.Add(name="block_add")([stem, x]))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(32, 1, activation="relu", name="pointwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(image, layers.Dense(10, activation=activation, name="answer")(x), name="convnet")


def trained_teacher(folder: Path) -> tuple[Path, Path]:
    """A trained `convnet`: paths of its Keras and its ONNX file."""
    from edgemill.ingest.export import keras_to_onnx
    from edgemill.recipe import Optimizer, Task, Training
    from edgemill.tf import fresh
    from edgemill.train.loop import Objective, train

    fresh(1)
    model = convnet()
    data = Dataset(write_digits(folder / "data"))
    settings = Training(epochs=8, batch_size=32, learning_rate=0.005, optimizer=Optimizer.ADAM)
    train(model, data, settings, Objective(Task.CLASSIFICATION, None), context(folder / "teacher"))
    model.save(folder / "teacher.keras")
    keras_to_onnx(model, folder / "teacher.onnx")
    return folder / "teacher.keras", folder / "teacher.onnx"
