from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError, InvariantError, QualityGateError
from edgemill.ingest.export import keras_to_onnx
from edgemill.prune import PruneSettings
from edgemill.prune.select import choose
from edgemill.prune.sparsity import run
from edgemill.prune.verify import verify
from edgemill.recipe import PruneMethod, Task
from edgemill.tf import fresh, keras
from tests.train.digits import context, convnet, given, trained_teacher

layers = keras.layers


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prune")
    trained_teacher(folder)
    return folder


def prune(home, folder, **changes):
    values = {"task": Task.CLASSIFICATION, "epochs": 4, "batch_size": 32, "learning_rate": 0.002, "sparsity": 0.6}
    inputs = {
        "keras": given(home / "teacher.keras", "keras"),
        "teacher": given(home / "teacher.onnx", "onnx"),
        "data": given(home / "data", "dataset"),
    }
    return run(PruneSettings.model_validate(values | changes), inputs, context(folder))


@pytest.fixture(scope="module")
def magnitude(home, tmp_path_factory):
    return prune(home, tmp_path_factory.mktemp("magnitude"))


def test_magnitude_pruning_zeroes_the_share_asked_for_in_the_onnx_graph(home, magnitude):
    graph = onnx.load(magnitude.files["onnx"].path)
    tensors = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    assert {row["layer"] for row in magnitude.facts["layers"]} == {"block_conv", "pointwise", "answer"}
    for row in magnitude.facts["layers"]:
        zeros = int((tensors[row["tensor"]] == 0).sum())
        assert zeros == row["zeros"]
        assert zeros / row["weights"] == pytest.approx(0.6, abs=0.01)
    assert magnitude.facts["sparsity"] == pytest.approx(0.6, abs=0.01)
    assert magnitude.facts["nonzero_parameters"] < 0.7 * magnitude.facts["parameters"]


def test_the_pruned_model_still_works_and_both_files_agree(home, magnitude):
    data = Dataset(home / "data")
    x, y = data.features(SplitName.VALIDATION), data.labels(SplitName.VALIDATION)
    model = keras.models.load_model(magnitude.files["keras"].path, compile=False)
    answer = model.predict(x, verbose=0)
    assert (answer.argmax(1) == y).mean() == pytest.approx(magnitude.facts["score"])
    assert magnitude.facts["score"] > 0.88
    session = ort.InferenceSession(magnitude.files["onnx"].path)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x})[0], answer, atol=1e-4)
    assert [layer.name for layer in model.layers] == [layer.name for layer in convnet().layers]


def test_kept_epoch_is_one_at_full_sparsity(magnitude):
    assert magnitude.facts["history"]["best_epoch"] >= 2


def test_layers_left_alone_are_listed_with_a_reason(magnitude):
    reasons = {row["layer"]: row["reason"] for row in magnitude.facts["not_pruned"]}
    assert set(reasons) == {"stem", "depthwise"}
    assert "too small" in reasons["stem"]
    assert "depthwise" in reasons["depthwise"]


def test_two_of_four_along_the_input_channels(home, tmp_path):
    outputs = prune(home, tmp_path, method=PruneMethod.N_M, sparsity=0.5, distill=False, epochs=2)
    model = keras.models.load_model(outputs.files["keras"].path, compile=False)
    for row in outputs.facts["layers"]:
        kernel = model.get_layer(row["layer"]).kernel.numpy()
        groups = np.moveaxis(kernel, -2, -1).reshape(-1, 4)
        assert ((groups == 0).sum(axis=1) >= 2).all()
        assert row["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert outputs.facts["score"] > 0.85


def test_two_of_four_names_layers_without_channels_in_fours():
    fresh(0)
    model = keras.Sequential(
        [
            layers.Input((12, 6)),
            layers.Conv1D(64, 3, name="one_dimensional"),
            layers.Flatten(),
            layers.Dense(30, name="fine"),
            layers.Dense(20, name="thirty_inputs"),
        ]
    )
    reasons = {choice.name: choice.reason for choice in choose(model, PruneMethod.N_M)}
    assert reasons["fine"] is None
    assert "Conv1D" in reasons["one_dimensional"]
    assert "has 30" in reasons["thirty_inputs"]


def test_nested_models_are_pruned_too(home, tmp_path):
    fresh(0)
    inner = keras.Sequential([layers.Input((8, 8, 16)), layers.Conv2D(16, 3, name="inside"), layers.ReLU()])
    image = keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(inner(layers.Conv2D(16, 3, padding="same")(image)))
    model = keras.Model(image, layers.Dense(10)(x))
    model.save(tmp_path / "teacher.keras")
    keras_to_onnx(model, tmp_path / "teacher.onnx")
    (tmp_path / "data").symlink_to(home / "data")
    outputs = prune(tmp_path, tmp_path / "work", epochs=1, sparsity=0.75)
    (row,) = outputs.facts["layers"]
    assert row["layer"] == "inside"
    assert row["sparsity"] == pytest.approx(0.75, abs=0.01)


def test_a_model_without_prunable_layers_is_refused_with_reasons(home, tmp_path):
    fresh(0)
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.GlobalMaxPooling2D(), layers.Dense(10, name="tiny")])
    model.save(tmp_path / "teacher.keras")
    keras_to_onnx(model, tmp_path / "teacher.onnx")
    (tmp_path / "data").symlink_to(home / "data")
    with pytest.raises(CheckpointError, match="no layer that can be pruned") as caught:
        prune(tmp_path, tmp_path / "work")
    assert "tiny: too small" in str(caught.value)


def test_a_graph_without_the_zeros_is_found_out(home, magnitude, tmp_path):
    model = keras.models.load_model(magnitude.files["keras"].path, compile=False)
    kernels = [("block_conv", model.get_layer("block_conv").kernel.numpy())]
    assert verify(kernels, magnitude.files["onnx"].path, PruneMethod.MAGNITUDE, 0.6)[0].layer == "block_conv"
    with pytest.raises(InvariantError, match="zeros"):
        verify(kernels, home / "teacher.onnx", PruneMethod.MAGNITUDE, 0.6)
    with pytest.raises(QualityGateError, match="too few zeros"):
        verify(kernels, magnitude.files["onnx"].path, PruneMethod.MAGNITUDE, 0.9)
    with pytest.raises(QualityGateError, match="2:4"):
        verify(kernels, magnitude.files["onnx"].path, PruneMethod.N_M, 0.5)
