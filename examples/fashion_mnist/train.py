"""How a checkpoint like fashion_teacher.keras is trained: 9 epochs, about 15 minutes on 2 cores.

    FASHION_MNIST_DIR=... python examples/fashion_mnist/train.py OUT.keras [EPOCHS]

The samples are split as recipe.yaml says, so neither validation nor test images are trained on.
Training is repeatable on one machine; another one rounds otherwise and gives another model.
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
EPOCHS = 9
BATCH = 128
PEAK_LEARNING_RATE = 0.1


def conv(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
    """Convolution without bias, then batch normalization."""
    x = keras.layers.Conv2D(
        filters,
        size,
        stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.l2(1e-4),
        name=f"{name}_c",
    )(x)
    return keras.layers.BatchNormalization(name=f"{name}_b")(x)


def block(x: Any, filters: int, name: str) -> Any:
    """Residual block that halves the image (He et al. 2016, section 3.3, option B)."""
    y = keras.layers.ReLU(name=f"{name}a_r")(conv(x, filters, 3, 2, f"{name}a"))
    y = conv(y, filters, 3, 1, f"{name}b")
    y = keras.layers.Add(name=f"{name}_add")([y, conv(x, filters, 1, 2, f"{name}s")])
    return keras.layers.ReLU(name=f"{name}_o")(y)


def build() -> Any:
    """Model from float32 (N, 28, 28, 1) to 10 logits; 683,650 parameters, 21.07 M MACs."""
    inputs = keras.Input((28, 28, 1), name="input")
    x = keras.layers.ReLU(name="stem_r")(conv(inputs, 24, 3, 1, "stem"))
    for index, filters in enumerate((48, 96, 192)):
        x = block(x, filters, f"s{index}")
    x = keras.layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, keras.layers.Dense(10, name="logits")(x), name="teacher")


def augmented(x: Any, y: Any) -> tuple[Any, Any]:
    """Mirror left-right and move by up to two pixels, edges padded with zeros."""
    x = tf.image.random_flip_left_right(x)
    return tf.image.random_crop(tf.image.pad_to_bounding_box(x, 2, 2, 32, 32), (28, 28, 1)), y


def load_data(folder: Path) -> Dataset:
    """The dataset that the recipe describes."""
    recipe = load_recipe(HERE / "recipe.yaml")
    run(
        LoadSettings(data=recipe.data, task=recipe.task),
        {},
        StepContext(out=folder, resume=folder, seed=recipe.seed, report=lambda fraction, message: None),
    )
    return Dataset(folder / "dataset")


def main(out: Path, epochs: int) -> None:
    """Train, print validation and test accuracy, save without the optimizer's state."""
    fresh(SEED)
    with tempfile.TemporaryDirectory() as folder:
        data = load_data(Path(folder))
        arrays = {split: (data.features(split), np.asarray(data.labels(split))) for split in SplitName}
    train = arrays[SplitName.TRAIN]
    batches = (
        tf.data.Dataset.from_tensor_slices(train)
        .shuffle(len(train[0]), seed=SEED)
        .map(augmented, tf.data.AUTOTUNE)
        .batch(BATCH)
        .prefetch(2)
    )
    model = build()
    steps = epochs * -(-len(train[0]) // BATCH)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(PEAK_LEARNING_RATE, steps), 0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=epochs, validation_data=arrays[SplitName.VALIDATION], verbose=2)
    for split in (SplitName.VALIDATION, SplitName.TEST):
        accuracy = model.evaluate(*arrays[split], verbose=0)[1]
        print(f"{split}: accuracy {accuracy:.4f} of {len(arrays[split][0])} samples")
    # The layers alone: no loss, no optimizer state, which would double the file.
    plain = build()
    plain.set_weights(model.get_weights())
    plain.save(out)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else EPOCHS)
