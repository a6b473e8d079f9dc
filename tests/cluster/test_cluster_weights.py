from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgemill.cluster.codebook import recognise, to_rows
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError, QualityGateError
from edgemill.ingest.export import keras_to_onnx
from edgemill.tf import fresh, keras
from tests.train.digits import context

layers = keras.layers
CLUSTERED = {"block_conv", "pointwise", "answer"}


def load(outputs):
    return keras.models.load_model(outputs.files["keras"].path, compile=False)


def test_every_clustered_layer_has_so_few_values_in_the_onnx_graph(clustered):
    graph = onnx.load(clustered.files["onnx"].path)
    tensors = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    assert {row["layer"] for row in clustered.facts["layers"]} == CLUSTERED
    for row in clustered.facts["layers"]:
        weight = tensors[row["tensor"]]
        channel_axis = 1 if weight.ndim == 2 else 0
        shared = recognise(to_rows(weight, (channel_axis,)))
        assert shared is not None
        assert len(np.unique(shared.steps)) == row["clusters"] <= 16
        assert row["weights"] == weight.size
        assert 0 < row["entropy_bits"] <= 4
    assert clustered.facts["warnings"] == []


def test_the_model_is_plain_still_works_and_both_files_agree(workshop, clustered):
    data = Dataset(workshop.folder / "data")
    x, y = data.features(SplitName.VALIDATION), data.labels(SplitName.VALIDATION)
    model, given = load(clustered), keras.models.load_model(workshop.folder / "model.keras", compile=False)
    answer = model.predict(x, verbose=0)
    assert (answer.argmax(1) == y).mean() == pytest.approx(clustered.facts["score"])
    assert clustered.facts["score"] > clustered.facts["score_before"] - 0.03
    session = ort.InferenceSession(clustered.files["onnx"].path)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], answer, atol=1e-4)
    assert [(w.name, w.shape) for w in model.weights] == [(w.name, w.shape) for w in given.weights]


def test_facts_are_json_and_name_the_layers_left_alone(clustered):
    json.dumps({**clustered.facts}, allow_nan=False)
    reasons = {row["layer"]: row["reason"] for row in clustered.facts["not_clustered"]}
    assert set(reasons) == {"stem", "depthwise"}
    assert "too small" in reasons["stem"]
    assert "depthwise" in reasons["depthwise"]


def test_training_moves_weights_and_levels(workshop, tmp_path):
    still = load(workshop.cluster(tmp_path / "still", learning_rate=1e-12))
    moved = load(workshop.cluster(tmp_path / "moved"))
    before, after = (recognise(to_rows(model.get_layer("block_conv").kernel.numpy(), (3,))) for model in (still, moved))
    assert not np.array_equal(before.index, after.index)
    assert not np.array_equal(before.levels, after.levels)
    assert not np.allclose(before.scale, after.scale, rtol=1e-4)


def test_sgd_that_collapses_summed_gradients_trains_ours(workshop, tmp_path):
    # tfmot's clustering gives a level the sum of its weights' gradients; a rate of 2e-3 then diverges.
    outputs = workshop.cluster(tmp_path, optimizer="sgd", learning_rate=2e-3, epochs=3)
    assert outputs.facts["score"] > outputs.facts["score_before"] - 0.03
    assert min(epoch["score"] for epoch in outputs.facts["history"]["epochs"]) > 0.85


def test_three_values_are_trained_back_to_work(workshop, tmp_path):
    outputs = workshop.cluster(tmp_path, clusters=3, epochs=4, learning_rate=2e-3)
    assert {row["clusters"] for row in outputs.facts["layers"]} == {3}
    assert outputs.facts["score_clustered"] < 0.7
    assert outputs.facts["score"] > 0.85


def test_divergence_fails_with_its_cause(workshop, tmp_path):
    with pytest.raises(QualityGateError, match="diverged") as caught:
        workshop.cluster(tmp_path, optimizer="sgd", learning_rate=1e30)
    assert "epoch 1" in str(caught.value)


def test_same_seed_same_bytes(workshop, tmp_path):
    once, again = (workshop.cluster(tmp_path / name, epochs=1) for name in ("once", "again"))
    assert once.files["onnx"].path.read_bytes() == again.files["onnx"].path.read_bytes()


def test_a_killed_run_goes_on_to_the_same_weights(workshop, tmp_path):
    whole = workshop.cluster(tmp_path / "whole", epochs=3)
    from edgemill.cluster import ClusterSettings
    from edgemill.cluster.weights import run

    around = context(tmp_path / "cut")
    settings = ClusterSettings.model_validate(
        {"epochs": 3, "batch_size": 32, "learning_rate": 5e-4, "clusters": 16, "task": "classification"}
    )

    def killed(fraction, message):
        if fraction is not None and fraction > 0.8:
            raise KeyboardInterrupt

    stopping = type(around)(around.out, around.resume, around.seed, killed)
    with pytest.raises(KeyboardInterrupt):
        run(settings, workshop.inputs(), stopping)
    resumed = run(settings, workshop.inputs(), around)
    assert resumed.facts["history"]["resumed_from"] == 2
    for ours, theirs in zip(load(whole).get_weights(), load(resumed).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layer_kinds_and_nested_models(workshop, tmp_path):
    fresh(0)
    inner = keras.Sequential([layers.Input((8, 8, 8)), layers.Conv2D(16, 3, name="inside"), layers.ReLU()])
    image = keras.Input((8, 8, 1))
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(inner(layers.Conv2D(8, 1)(image)))
    x = layers.Conv2DTranspose(12, 2, strides=2, name="wide")(x)
    x = layers.Reshape((12, 144))(x)
    x = layers.Conv1D(16, 3, name="line")(x)
    model = keras.Model(image, layers.Dense(10, name="answer")(layers.Flatten()(x)))
    model.save(tmp_path / "model.keras")
    keras_to_onnx(model, tmp_path / "model.onnx")
    workshop.made["kinds"] = tmp_path
    outputs = workshop.cluster(tmp_path / "work", "kinds", clusters=9, epochs=1)
    found = {row["layer"]: row for row in outputs.facts["layers"]}
    assert set(found) == {"inside", "wide", "line", "answer"}
    assert all(row["tensor"] is not None and row["clusters"] <= 9 for row in found.values())
    assert any(row["layer"] == "separable" for row in outputs.facts["not_clustered"])


def test_a_model_without_layers_to_cluster_is_refused_with_reasons(workshop, tmp_path):
    fresh(0)
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.GlobalMaxPooling2D(), layers.Dense(10, name="tiny")])
    model.save(tmp_path / "model.keras")
    keras_to_onnx(model, tmp_path / "model.onnx")
    workshop.made["tiny"] = tmp_path
    with pytest.raises(CheckpointError, match="no layer that can be clustered") as caught:
        workshop.cluster(tmp_path / "work", "tiny")
    assert "tiny: too small" in str(caught.value)
