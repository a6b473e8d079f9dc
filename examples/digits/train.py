"""Train the checkpoint of this example: a small residual network on 8 x 8 handwritten digits.

    python examples/digits/train.py [OUT.keras]

The samples are split as recipe.yaml says, so the gate's test samples were never trained on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.data import Dataset, LoadSettings, SplitName
from edgemill.data.load import run
from edgemill.recipe import load_recipe
from edgemill.step import StepContext
from edgemill.tf import fresh, keras, tf

HERE = Path(__file__).resolve().parent
SEED = 7
EPOCHS = 60
BATCH = 64
PEAK_LEARNING_RATE = 0.1


def conv(x: Any, filters: int, size: int, stride: int, name: str, *, relu: bool = True) -> Any:
    """Convolution without bias, batch normalization and, if asked, ReLU."""
    x = keras.layers.Conv2D(
        filters,
        size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.l2(5e-4),
        name=f"{name}_conv",
    )(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x) if relu else x


def block(x: Any, filters: int, stride: int, name: str) -> Any:
    """Basic residual block (He et al. 2016, section 3.3, option B)."""
    shortcut = x if stride == 1 else conv(x, filters, 1, stride, f"{name}_shortcut", relu=False)
    y = conv(x, filters, 3, stride, f"{name}_a")
    y = conv(y, filters, 3, 1, f"{name}_b", relu=False)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([y, shortcut]))


def build() -> Any:
    """Model from float32 (N, 8, 8, 1) to 10 logits."""
    inputs = keras.Input((8, 8, 1), name="image")
    x = conv(inputs, 32, 3, 1, "stem")
    x = block(x, 32, 1, "block1")
    x = block(x, 64, 2, "block2")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="digits")


def shifted(x: Any, y: Any) -> tuple[Any, Any]:
    """Move an image by up to one pixel in each direction, edges padded with zeros."""
    return tf.image.random_crop(tf.image.pad_to_bounding_box(x, 1, 1, 10, 10), (8, 8, 1)), y


def load_data(folder: Path) -> Dataset:
    """The dataset that the recipe describes."""
    recipe = load_recipe(HERE / "recipe.yaml")
    run(
        LoadSettings(data=recipe.data, task=recipe.task),
        {},
        StepContext(out=folder, resume=folder, seed=recipe.seed, report=lambda fraction, message: None),
    )
    return Dataset(folder / "dataset")


def main(out: Path) -> None:
    """Train, print validation and test accuracy, save without the optimizer's state."""
    fresh(SEED)
    tf.config.experimental.enable_op_determinism()
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(Path(folder))
        arrays = {s: (data.features(s), np.asarray(data.labels(s))) for s in SplitName}
    train = arrays[SplitName.TRAIN]
    batches = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[0]), seed=SEED).map(shifted).batch(BATCH)
    model = build()
    steps = EPOCHS * -(-len(train[0]) // BATCH)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(PEAK_LEARNING_RATE, steps), 0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=EPOCHS, validation_data=arrays[SplitName.VALIDATION], verbose=2)
    for split in (SplitName.VALIDATION, SplitName.TEST):
        accuracy = model.evaluate(*arrays[split], verbose=0)[1]
        print(f"{split}: accuracy {accuracy:.4f} of {len(arrays[split][0])} samples")
    print(f"{model.count_params()} parameters")
    # The layers alone: no loss, no optimizer state, which would triple the file.
    plain = build()
    plain.set_weights(model.get_weights())
    plain.save(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "digits.keras")
