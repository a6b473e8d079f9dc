"""A trained small network whose normalizations have negative factors too, pruned and clustered once a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgemill.cluster import ClusterSettings
from edgemill.recipe import Task
from tests.train.digits import context, given, trained_teacher

CLUSTERS = 16


class Workshop:
    """Files of the model after each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        trained_teacher(folder)
        self._negate(folder)
        self.made: dict[str, Path] = {"none": folder}

    def _negate(self, folder: Path) -> None:
        """Turn the sign of every other filter before a normalization, and of its factor: the same answers."""
        from edgemill.ingest.export import keras_to_onnx
        from edgemill.tf import keras

        model = keras.models.load_model(folder / "teacher.keras", compile=False)
        conv, norm = model.get_layer("block_conv"), model.get_layer("block_bn")
        sign = np.where(np.arange(16) % 2, -1, 1).astype(np.float32)
        conv.set_weights([value * sign for value in conv.get_weights()])
        gamma, beta, mean, variance = norm.get_weights()
        norm.set_weights([gamma * sign, beta, mean * sign, variance])
        model.save(folder / "model.keras")
        keras_to_onnx(model, folder / "model.onnx")

    def inputs(self, name: str = "none") -> dict:
        return {
            "keras": given(self.made[name] / "model.keras", "keras"),
            "onnx": given(self.made[name] / "model.onnx", "onnx"),
            "teacher": given(self.folder / "teacher.onnx", "onnx"),
            "data": given(self.folder / "data", "dataset"),
        }

    def cluster(self, folder: Path, source: str = "none", **changes):
        from edgemill.cluster.weights import run

        values = {"epochs": 2, "batch_size": 32, "learning_rate": 5e-4, "clusters": CLUSTERS}
        settings = ClusterSettings.model_validate(values | changes | {"task": Task.CLASSIFICATION})
        return run(settings, self.inputs(source), context(folder))

    def keep(self, name: str, outputs) -> None:
        self.made[name] = outputs.files["keras"].path.parent


@pytest.fixture(scope="session")
def workshop(tmp_path_factory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="session")
def clustered(workshop, tmp_path_factory):
    outputs = workshop.cluster(tmp_path_factory.mktemp("clustered"))
    workshop.keep("clustered", outputs)
    return outputs


@pytest.fixture(scope="session")
def pruned(workshop, tmp_path_factory):
    from edgemill.prune import PruneSettings
    from edgemill.prune.sparsity import run

    settings = PruneSettings(task=Task.CLASSIFICATION, epochs=2, batch_size=32, learning_rate=0.002, sparsity=0.6)
    outputs = run(settings, workshop.inputs(), context(tmp_path_factory.mktemp("pruned")))
    workshop.keep("pruned", outputs)
    return outputs


@pytest.fixture(scope="session")
def pruned_and_clustered(workshop, pruned, tmp_path_factory):
    outputs = workshop.cluster(tmp_path_factory.mktemp("both"), "pruned")
    workshop.keep("pruned_and_clustered", outputs)
    return outputs
