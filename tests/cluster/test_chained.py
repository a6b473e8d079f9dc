"""Each step of a chain keeps what the one before gained: read from the files that ship."""

from __future__ import annotations

import numpy as np
import pytest

from edgemill.cluster.verify import distinct_bytes, int8_weights
from edgemill.data.dataset import Dataset, SplitName
from edgemill.quantize import LitertScheme, LitertSettings, QatSettings, StaticSettings
from edgemill.recipe import Qat
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from tests.cluster.conftest import CLUSTERS
from tests.train.digits import context

SIZES = {"block_conv": 2304, "pointwise": 512, "answer": 320}


@pytest.fixture(scope="session")
def stages(clustered, pruned, pruned_and_clustered):
    """Makes sure that the workshop has them."""
    return {"clustered": clustered, "pruned": pruned, "pruned_and_clustered": pruned_and_clustered}


@pytest.fixture(scope="session")
def trained(workshop, stages, tmp_path_factory):
    from edgemill.quantize.qat import run

    settings = QatSettings(training=Qat(epochs=2, batch_size=32, learning_rate=1e-3))
    return {
        name: run(settings, workshop.inputs(name), context(tmp_path_factory.mktemp(f"qat_{name}"))) for name in stages
    }


@pytest.fixture(scope="session")
def static(workshop, stages, tmp_path_factory):
    from edgemill.quantize import litert
    from edgemill.quantize import static as onnx_static

    made = {}
    for name in ("none", *stages):
        lite = litert.run(
            LitertSettings(scheme=LitertScheme.INT8_STATIC),
            workshop.inputs(name),
            context(tmp_path_factory.mktemp(f"litert_{name}")),
        )
        made[name] = {"tflite": lite.files["tflite"].path}
        for target in ("x86-64-vnni", "x86-64-avx2"):
            settings = StaticSettings(int8=load_target(target).int8)
            outputs = onnx_static.run(
                settings, workshop.inputs(name), context(tmp_path_factory.mktemp(f"static_{name}"))
            )
            made[name][target] = outputs.files["onnx"].path
    return made


def large(path):
    """int8 weights of the layers that are pruned and clustered."""
    found = [weight for weight in int8_weights(path).values() if weight.size in SIZES.values()]
    assert sorted(weight.size for weight in found) == sorted(SIZES.values())
    return found


def files_of(outputs):
    return [file.path for file in outputs.files.values()]


def accuracy(path, workshop):
    data = Dataset(workshop.folder / "data")
    answers = open_model(path, path.suffix.lstrip("."), 1).predict(data.features(SplitName.VALIDATION))
    return float((answers.argmax(axis=1) == data.labels(SplitName.VALIDATION)).mean())


@pytest.mark.parametrize("name", ["clustered", "pruned_and_clustered"])
def test_quantizing_after_training_keeps_the_clusters_in_every_file(static, name):
    for path in static[name].values():
        assert max(len(np.unique(weight)) for weight in large(path)) <= CLUSTERS


@pytest.mark.parametrize("name", ["clustered", "pruned_and_clustered"])
def test_training_under_quantization_keeps_the_clusters_in_every_file(trained, name):
    assert set(trained[name].files) == {"tflite", "onnx_uint8", "onnx_int8"}
    for path in files_of(trained[name]):
        assert max(len(np.unique(weight)) for weight in large(path)) <= CLUSTERS


def test_without_clustering_the_same_layers_hold_many_bytes(static, trained):
    for path in [*static["none"].values(), *files_of(trained["pruned"])]:
        assert min(len(np.unique(weight)) for weight in large(path)) > 4 * CLUSTERS
        assert max(distinct_bytes(path).values()) > 4 * CLUSTERS


def test_clustering_keeps_every_zero_of_pruning(workshop, pruned, pruned_and_clustered):
    from edgemill.tf import keras

    before, after = (
        keras.models.load_model(outputs.files["keras"].path, compile=False)
        for outputs in (pruned, pruned_and_clustered)
    )
    for row in pruned_and_clustered.facts["layers"]:
        zeros = before.get_layer(row["layer"]).kernel.numpy() == 0
        assert (after.get_layer(row["layer"]).kernel.numpy()[zeros] == 0).all()
        assert row["zeros"] >= row["zeros_given"] == zeros.sum() >= 0.59 * row["weights"]


@pytest.mark.parametrize("name", ["pruned", "pruned_and_clustered"])
def test_the_zeros_are_in_every_file(static, trained, name):
    for path in [*static[name].values(), *files_of(trained[name])]:
        assert min((weight == 0).mean() for weight in large(path)) >= 0.59


def test_training_under_quantization_says_what_it_kept(trained):
    assert trained["pruned"].facts["clusters"] == {}
    assert len(trained["clustered"].facts["clusters"]) == len(SIZES)
    assert len(trained["pruned_and_clustered"].facts["sparsity"]) == len(SIZES)
    assert len(trained["pruned_and_clustered"].facts["clusters"]) == len(SIZES)


@pytest.mark.parametrize("name", ["clustered", "pruned_and_clustered"])
def test_the_chain_still_works_in_both_runtimes(workshop, stages, trained, static, name):
    plain = stages[name].facts["score"]
    for path in [*static[name].values(), *files_of(trained[name])]:
        assert accuracy(path, workshop) > plain - 0.03
