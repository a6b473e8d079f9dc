"""TensorFlow Model Optimization Toolkit and the TFLite converter, with the settings of their guides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tfmot knows Keras 2 only

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from runner import SEED, Inputs, run
from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as preserving

BATCH = 128
CLUSTERS = 16
SPARSITY = 0.8
PRUNING_EPOCHS = 2


def fp32(inputs: Inputs, out: Path) -> None:
    """Converted, nothing else."""
    _write(tf.lite.TFLiteConverter.from_keras_model(_teacher(inputs)), out)


def dynamic(inputs: Inputs, out: Path) -> None:
    """Dynamic range quantization: Optimize.DEFAULT without samples."""
    _write(_optimizing(_teacher(inputs)), out)


def ptq(inputs: Inputs, out: Path) -> None:
    """Integer with float fallback: Optimize.DEFAULT with the calibration samples; float in, float out."""
    _write(_calibrated(_teacher(inputs), inputs), out)


def ptq_integer(inputs: Inputs, out: Path) -> None:
    """Integer only: int8 in, int8 out."""
    converter = _calibrated(_teacher(inputs), inputs)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    _write(converter, out)


def qat(inputs: Inputs, out: Path) -> dict[str, Any]:
    """Quantization-aware training of one epoch, then Optimize.DEFAULT."""
    model = tfmot.quantization.keras.quantize_model(_teacher(inputs))
    notes = _fit(model, inputs, epochs=1, rate=1e-4)
    _write(_optimizing(model), out)
    return notes


def prune(inputs: Inputs, out: Path) -> dict[str, Any]:
    """Magnitude pruning to 80 % in two epochs, then integer quantization."""
    model, notes = _pruned(_teacher(inputs), inputs)
    _write(_calibrated(model, inputs), out)
    return notes


def cluster(inputs: Inputs, out: Path) -> dict[str, Any]:
    """16 clusters a layer, one epoch with Adam at 1e-5 (the guide's), then integer quantization."""
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    model = tfmot.clustering.keras.cluster_weights(
        _teacher(inputs), number_of_clusters=CLUSTERS, cluster_centroids_init=start
    )
    notes = _fit(model, inputs, epochs=1, rate=1e-5)
    _write(_calibrated(tfmot.clustering.keras.strip_clustering(model), inputs), out)
    return notes


def pcqat(inputs: Inputs, out: Path) -> dict[str, Any]:
    """All together: pruning, clustering that keeps the zeros, training aware of quantization that keeps both."""
    model, first = _pruned(_teacher(inputs), inputs)
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    clustered = preserving.cluster_weights(
        model, number_of_clusters=CLUSTERS, cluster_centroids_init=start, preserve_sparsity=True
    )
    second = _fit(clustered, inputs, epochs=1, rate=1e-5)
    stripped = tfmot.clustering.keras.strip_clustering(clustered)
    scheme = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    annotated = tfmot.quantization.keras.quantize_annotate_model(stripped)
    trained = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    third = _fit(trained, inputs, epochs=1, rate=1e-5)
    _write(_optimizing(trained), out)
    return {"prune": first, "cluster": second, "quantize": third}


def _teacher(inputs: Inputs) -> Any:
    keras.utils.set_random_seed(SEED)
    return keras.models.load_model(inputs.keras, compile=False)


def _pruned(model: Any, inputs: Inputs) -> tuple[Any, dict[str, Any]]:
    steps = PRUNING_EPOCHS * -(-len(inputs.array("train_x")) // BATCH)
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.5, final_sparsity=SPARSITY, begin_step=0, end_step=steps * 3 // 4
    )
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    step = tfmot.sparsity.keras.UpdatePruningStep()
    notes = _fit(wrapped, inputs, epochs=PRUNING_EPOCHS, rate=1e-3, callbacks=[step])
    return tfmot.sparsity.keras.strip_pruning(wrapped), notes


def _fit(model: Any, inputs: Inputs, epochs: int, rate: float, callbacks: list[Any] | None = None) -> dict[str, Any]:
    model.compile(
        optimizer=keras.optimizers.legacy.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    train = np.array(inputs.array("train_x")), np.array(inputs.array("train_y"))
    model.fit(*train, batch_size=BATCH, epochs=epochs, verbose=2, callbacks=callbacks)
    score = model.evaluate(
        np.array(inputs.array("validation_x")), np.array(inputs.array("validation_y")), batch_size=500, verbose=0
    )
    return {"epochs": epochs, "learning_rate": rate, "validation_accuracy": round(float(score[1]), 4)}


def _optimizing(model: Any) -> Any:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def _calibrated(model: Any, inputs: Inputs) -> Any:
    def samples() -> Iterator[list[Any]]:
        for sample in inputs.array("calibration_x"):
            yield [np.array(sample[None])]

    converter = _optimizing(model)
    converter.representative_dataset = samples
    return converter


def _write(converter: Any, out: Path) -> None:
    (out / "model.tflite").write_bytes(converter.convert())


SETTINGS: dict[str, Callable[[Inputs, Path], dict[str, Any] | None]] = {
    "fp32": fp32,
    "dynamic": dynamic,
    "ptq": ptq,
    "ptq_integer": ptq_integer,
    "qat": qat,
    "prune": prune,
    "cluster": cluster,
    "pcqat": pcqat,
}

if __name__ == "__main__":
    run(SETTINGS)
