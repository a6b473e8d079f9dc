"""Anomaly detectors: learned from the teacher alone, labels for judging only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.distill import DistillSettings
from edgemill.distill.student import run as distill
from edgemill.errors import RecipeError
from edgemill.ingest.export import keras_to_onnx
from edgemill.quantize.agreement import score
from edgemill.recipe import Budget, Preprocess, Task
from edgemill.runtimes import open_model
from edgemill.tf import fresh, keras
from edgemill.train.loop import Objective
from edgemill.train.objective import Answer, answer_kind
from edgemill.validate import GateFacts, GateSettings
from edgemill.validate.gate import run as gate
from edgemill.validate.scores import split_score
from tests.train.digits import context, given

TEST = SplitName.TEST


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Digits 0 to 4 are normal; the other splits than training hold noise-ridden ones as anomalies."""
    folder = tmp_path_factory.mktemp("anomaly") / "data"
    source = load_digits()
    x = source.images[source.target < 5].reshape(-1, 64).astype(np.float32)
    rng = np.random.default_rng(0)
    rng.shuffle(x)
    x, others = x[:500], x[500:]
    bad = np.clip(others + rng.normal(0, 6, others.shape), 0, 16).astype(np.float32)
    mixed, labels = np.concatenate([others, bad]), np.repeat([0, 1], len(others)).astype(np.int64)
    order = rng.permutation(len(mixed))
    samples = dict.fromkeys(SplitName, mixed[order]) | {SplitName.TRAIN: x}
    truth = dict.fromkeys(SplitName, labels[order]) | {SplitName.TRAIN: np.zeros(len(x), np.int64)}
    folder.mkdir()
    write_dataset(folder, samples, truth, Preprocess(scale=16))
    return folder


def test_an_autoencoder_is_distilled_predicted_and_gated(data, tmp_path):
    fresh(0)
    layers = keras.layers
    teacher = keras.Sequential(
        [
            layers.Input((64,)),
            layers.Dense(48, activation="relu"),
            layers.Dense(24),
            layers.Dense(48, activation="relu"),
            layers.Dense(64),
        ]
    )
    teacher.compile("adam", "mse")
    x = Dataset(data).features(SplitName.TRAIN)
    teacher.fit(x, x, epochs=60, batch_size=32, verbose=0)
    teacher.save(tmp_path / "teacher.keras")
    keras_to_onnx(teacher, tmp_path / "teacher.onnx")
    inputs = {
        "teacher": given(tmp_path / "teacher.onnx", "onnx"),
        "keras": given(tmp_path / "teacher.keras", "keras"),
        "data": given(data, "dataset"),
    }
    settings = DistillSettings(
        task=Task.ANOMALY, student={"width": 0.75}, epochs=30, soft_weight=1, batch_size=32, learning_rate=0.003
    )
    outputs = distill(settings, inputs, context(tmp_path / "distill"))
    assert outputs.facts["score"] < 0  # a negated error: it learns values
    assert outputs.facts["teacher_score"] == 0

    judged = Dataset(data)
    files = {"baseline": tmp_path / "teacher.onnx", "variant": outputs.files["onnx"].path}
    given_to_gate = {"data": given(data, "dataset")}
    areas = {}
    for name, path in files.items():
        answers = open_model(path, "onnx", 1).predict(judged.features(TEST))
        np.save(tmp_path / f"{name}.npy", answers)
        given_to_gate[name] = given(tmp_path / f"{name}.npy", "predictions")
        areas[name] = split_score(Task.ANOMALY, answers, judged.labels(TEST), judged.features(TEST))
        assert score(answers, judged, Task.ANOMALY) == areas[name]  # validation holds the same samples here
    assert areas["baseline"] > 0.95
    rule = GateSettings(task=Task.ANOMALY, budget=Budget(max_accuracy_drop=0.2))
    facts = GateFacts.model_validate(gate(rule, given_to_gate, context(tmp_path / "gate")).facts)
    assert (facts.baseline_accuracy, facts.accuracy) == pytest.approx((areas["baseline"], areas["variant"]))
    assert facts.verdict.passed


def test_an_anomaly_score_is_a_value_and_needs_a_teacher(data):
    single = keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(1, activation="sigmoid")])
    assert answer_kind(single, Task.ANOMALY, Dataset(data)) is Answer.VALUES
    with pytest.raises(RecipeError, match="teacher"):
        Objective(Task.ANOMALY, None)
    with pytest.raises(RecipeError, match="no labels"):
        Objective(Task.ANOMALY, object(), 1.0, 0.5)
