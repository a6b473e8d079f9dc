"""A checkpoint that plain int8 breaks and whose float answers are as good as any: badly scaled channels.

A depthwise-separable network is trained on Fashion-MNIST with batch normalization and ReLU. Then every
channel between two layers is multiplied by its own factor (log-uniform in 1/30..30), and what reads it is
divided by the same factor. ReLU(f x) = f ReLU(x) for f > 0, so the float network computes the same; but one
activation scale, and one weight scale, now has to serve channels whose ranges differ a thousandfold.
The same is done to a network of matrix products between layer normalizations, whose gains are multiplied.
This is the state in which MobileNets come out of training, by other means (Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", ICCV 2019, section 3.1 and figure 2).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import context, input_file
from benchmarks.w1 import w1_data
from edgemill.artifact import canonical_json, digest_text
from edgemill.data.dataset import Dataset, SplitName
from edgemill.step import InputFile

DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
SEPARABLE, TOKENS = "separable", "tokens"
FACTOR = 30.0
SEED = 7
_VERSION = 1
_SAMPLES = {SplitName.TRAIN: 12_000, SplitName.VALIDATION: 3_000, SplitName.CALIBRATION: 300}
_UNCHANGED = 1e-4


@dataclass(frozen=True)
class BadChannels:
    """What `make_bad_channels` leaves in its folder.

    Attributes:
        keras: the rescaled checkpoint, batch normalization unfolded.
        onnx: the same as fp32 ONNX, batch normalization folded.
        healthy_keras: the checkpoint before rescaling.
        healthy_onnx: the same as fp32 ONNX.
        data: dataset folder (kind `dataset`): the first training, all validation, 300 calibration and all
            10,000 test samples of workload W1.
        facts: `parameters`, `validation_accuracy` of the trained network, `largest_difference` of the logits of the two
            ONNX files and `largest_logit`, on 256 validation samples; `factor`, `pairs` rescaled.
    """

    keras: Path
    onnx: Path
    healthy_keras: Path
    healthy_onnx: Path
    data: Path
    facts: dict[str, Any]

    def inputs(self) -> dict[str, InputFile]:
        """Inputs of a step: `onnx`, `keras`, `data`."""
        return {
            "onnx": input_file(self.onnx, "onnx"),
            "keras": input_file(self.keras, "keras"),
            "data": input_file(self.data, "dataset"),
        }


def make_bad_channels(
    folder: Path,
    epochs: int = 8,
    *,
    kind: str = SEPARABLE,
    factor: float = FACTOR,
    train_samples: int = _SAMPLES[SplitName.TRAIN],
    source: Path | None = None,
    seed: int = SEED,
    report: Callable[[str], None] = print,
) -> BadChannels:
    """Train, rescale and export; what an earlier call with the same arguments made is returned as it is.

    Args:
        folder: working folder; made if missing. Every set of arguments has a folder of its own in it.
        epochs: of training.
        kind: `SEPARABLE` (depthwise-separable convolutions) or `TOKENS` (layer normalizations and matrix products).
        factor: channels are multiplied by 1/factor..factor.
        train_samples: how many of the training samples are used.
        source: folder with the four IDX files; left out: FASHION_MNIST_DIR, or where Debian puts them.
        seed: of training and of the factors.
        report: told about progress.

    Raises:
        SystemExit: the data is missing, or rescaling changed the answers.
    """
    source = source or Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER))
    if not source.exists():
        raise SystemExit(f"no Fashion-MNIST folder at {source}")
    key = digest_text(canonical_json([_VERSION, kind, epochs, factor, train_samples, seed]))[:16]
    made = folder / f"bad-channels-{key}"
    if not (made / "facts.json").exists():
        part = made.with_suffix(".part")
        for leftover in (part, made):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        _make(part, kind, epochs, factor, train_samples, source, seed, report)
        part.rename(made)
    return BadChannels(
        keras=made / "bad.keras",
        onnx=made / "bad.onnx",
        healthy_keras=made / "healthy.keras",
        healthy_onnx=made / "healthy.onnx",
        data=made / "data",
        facts=json.loads((made / "facts.json").read_text(encoding="utf-8")),
    )


def separable(keras: Any) -> Any:
    """Depthwise-separable network for 28 x 28 x 1, logits of ten classes; 30,000 parameters."""
    layers = keras.layers
    entry = keras.Input((28, 28, 1), name="image")
    x = layers.Conv2D(24, 3, strides=2, padding="same", use_bias=False, name="stem")(entry)
    x = _norm_relu(layers, x, "stem")
    for index, (width, stride) in enumerate(((48, 1), (96, 2), (96, 1), (96, 1))):
        x = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"depth{index}")(x)
        x = _norm_relu(layers, x, f"depth{index}")
        x = layers.Conv2D(width, 1, use_bias=False, name=f"point{index}")(x)
        x = _norm_relu(layers, x, f"point{index}")
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(entry, layers.Dense(10, name="logits")(x), name="separable")


def tokens(keras: Any) -> Any:
    """49 patches of 4 x 4, two residual blocks of LayerNormalization - Dense - ReLU - Dense, mean, ten logits."""
    layers = keras.layers
    entry = keras.Input((28, 28, 1), name="image")
    x = layers.Reshape((7, 4, 7, 4))(entry)
    x = layers.Reshape((49, 16))(layers.Permute((1, 3, 2, 4))(x))
    x = layers.Dense(64, name="embed")(x)
    for index in range(2):
        y = layers.LayerNormalization(name=f"block{index}_norm")(x)
        y = layers.Dense(128, activation="relu", name=f"block{index}_wide")(y)
        x = layers.Add(name=f"block{index}_sum")([x, layers.Dense(64, name=f"block{index}_narrow")(y)])
    x = layers.Flatten(name="flat")(layers.LayerNormalization(name="last_norm")(x))
    x = layers.Dense(64, activation="relu", name="hidden")(x)
    return keras.Model(entry, layers.Dense(10, name="logits")(x), name="tokens")


def _norm_relu(layers: Any, x: Any, name: str) -> Any:
    x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def rescale(model: Any, factor: float, seed: int) -> int:
    """Multiply every channel between two layers by a factor and divide what reads it, in place.

    Args:
        model: of `separable` or `tokens`.
        factor: largest; the smallest is its inverse.
        seed: of the factors.

    Returns:
        number of pairs of layers.
    """
    draw = np.random.default_rng(seed)
    pairs = _pairs(model)
    for first, second in pairs:
        maker, reader = model.get_layer(first), model.get_layer(second)
        # Normalizations: gain and shift first. Dense: channels are the last dimension of kernel and bias.
        made, shift, *statistics = maker.get_weights()
        by = np.exp(draw.uniform(-np.log(factor), np.log(factor), shift.shape)).astype(np.float32)
        maker.set_weights([made * by, shift * by, *statistics])
        kernel, *bias = reader.get_weights()
        # Channels read: the last but one dimension of every kind of kernel here.
        reader.set_weights([kernel / by[:, None], *bias])
    return len(pairs)


def _pairs(model: Any) -> list[tuple[str, str]]:
    if model.name == TOKENS:
        blocks = [
            (f"block{i}_{a}", f"block{i}_{b}") for i in range(2) for a, b in (("norm", "wide"), ("wide", "narrow"))
        ]
        return [*blocks, ("hidden", "logits")]
    chain = [layer.name for layer in model.layers if layer.name.startswith(("stem", "depth", "point", "logits"))]
    norms = [name for name in chain if name.endswith("_norm")]
    products = [name for name in chain if not name.endswith(("_norm", "_relu"))]
    return list(zip(norms, products[1:], strict=True))


def _make(
    folder: Path,
    kind: str,
    epochs: int,
    factor: float,
    samples: int,
    source: Path,
    seed: int,
    report: Callable[[str], None],
) -> None:
    from edgemill.ingest.export import keras_to_onnx, save_keras
    from edgemill.recipe import Optimizer, Task, Training
    from edgemill.runtimes import open_model
    from edgemill.tf import fresh, keras
    from edgemill.train.loop import Objective, train

    work = folder / "work"
    w1_data(work, source, _SAMPLES | {SplitName.TRAIN: samples})
    (work / "small").rename(folder / "data")
    data = Dataset(folder / "data")
    fresh(seed)
    model = {SEPARABLE: separable, TOKENS: tokens}[kind](keras)
    settings = Training(epochs=epochs, batch_size=64, optimizer=Optimizer.ADAM, learning_rate=4e-3)
    report(f"training {model.count_params()} parameters for {epochs} epochs on {samples} samples")
    history = train(model, data, settings, Objective(Task.CLASSIFICATION, None), context(work / "train", seed))
    save_keras(model, folder / "healthy.keras")
    keras_to_onnx(model, folder / "healthy.onnx")
    pairs = rescale(model, factor, seed)
    save_keras(model, folder / "bad.keras")
    keras_to_onnx(model, folder / "bad.onnx")
    x = data.features(SplitName.VALIDATION, 0, 256)
    before, after = (open_model(folder / f"{name}.onnx", "onnx").predict(x) for name in ("healthy", "bad"))
    difference, largest = float(np.abs(before - after).max()), float(np.abs(before).max())
    if difference > _UNCHANGED * max(largest, 1.0):
        raise SystemExit(f"rescaling changed the answers by {difference:.3g}, logits reach {largest:.3g}")
    facts = {
        "parameters": model.count_params(),
        "validation_accuracy": history.best_score,
        "largest_difference": difference,
        "largest_logit": largest,
        "factor": factor,
        "pairs": pairs,
    }
    shutil.rmtree(work)
    (folder / "facts.json").write_text(json.dumps(facts, sort_keys=True, indent=1), encoding="utf-8")
