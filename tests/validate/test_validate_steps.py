"""`validate.predict` and `validate.gate` on a real compiled file and a real dataset folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.errors import DataError, QualityGateError
from edgemill.recipe import Budget, Preprocess, Task
from edgemill.step import InputFile, StepContext
from edgemill.validate import GATE, PREDICT, SCREEN, Decision, GateFacts, GateSettings, PredictSettings
from edgemill.validate.gate import run as gate
from edgemill.validate.predict import run as predict

N = 900
BUDGET = Budget(max_accuracy_drop=0.02, confidence=0.95)


def given(path: Path, kind: str) -> InputFile:
    artifact = Artifact(digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="test")
    return InputFile(path, artifact)


def context(folder: Path, messages: list | None = None) -> StepContext:
    (folder / "out").mkdir(parents=True)
    (folder / "resume").mkdir()
    report = (
        (lambda fraction, message: messages.append((fraction, message))) if messages is not None else lambda *_: None
    )
    return StepContext(folder / "out", folder / "resume", 0, report)


def linear_model(path: Path, weights: np.ndarray) -> InputFile:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"]), helper.make_node("Softmax", ["scores"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weights.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, weights.shape[1]])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return given(path, "onnx")


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(6, 3))


@pytest.fixture
def data(tmp_path: Path, weights: np.ndarray) -> InputFile:
    rng = np.random.default_rng(1)
    samples = {
        split: rng.integers(0, 256, (N if split is SplitName.TEST else 40, 6), dtype=np.uint8) for split in SplitName
    }
    rule = Preprocess(scale=255, mean=0.5, std=0.5)
    labels = {
        split: np.argmax(((x / 255) - 0.5) / 0.5 @ weights, axis=1).astype(np.int64) for split, x in samples.items()
    }
    folder = tmp_path / "data"
    folder.mkdir()
    write_dataset(folder, samples, labels, rule)
    return given(folder, "dataset")


def predictions(tmp_path: Path, name: str, model: InputFile, data: InputFile) -> InputFile:
    settings = PredictSettings(split=SplitName.TEST, task=Task.CLASSIFICATION, batch_size=128)
    outputs = predict(settings, {"model": model, "data": data}, context(tmp_path / name))
    return given(outputs.files["predictions"].path, "predictions")


def test_predict_writes_every_answer_and_the_score(tmp_path, data, weights):
    model = linear_model(tmp_path / "m.onnx", weights)
    messages: list = []
    settings = PredictSettings(split=SplitName.TEST, task=Task.CLASSIFICATION, batch_size=128)
    outputs = predict(settings, {"model": model, "data": data}, context(tmp_path / "run", messages))
    answers = np.load(outputs.files["predictions"].path, allow_pickle=False)
    assert answers.shape == (N, 3)
    assert answers.dtype == np.float32
    assert outputs.facts.items() >= {"split": "test", "samples": N, "non_finite": 0, "score": 1.0}.items()
    assert messages[-1][0] == 1.0
    assert len(messages) == 8


def test_predict_keeps_and_counts_nan(tmp_path, data, weights):
    weights[0, 0] = np.nan
    outputs = predict(
        PredictSettings(split=SplitName.VALIDATION, task=Task.CLASSIFICATION),
        {"model": linear_model(tmp_path / "nan.onnx", weights), "data": data},
        context(tmp_path / "run"),
    )
    assert outputs.facts["non_finite"] > 0
    assert "score" not in outputs.facts


def test_gate_of_the_same_model_and_of_a_worse_one(tmp_path, data, weights):
    baseline = predictions(tmp_path, "base", linear_model(tmp_path / "a.onnx", weights), data)
    worse_weights = weights + np.random.default_rng(2).normal(scale=0.5, size=weights.shape)
    worse = predictions(tmp_path, "worse", linear_model(tmp_path / "b.onnx", worse_weights), data)
    settings = GateSettings(task=Task.CLASSIFICATION, budget=BUDGET)

    outputs = gate(settings, {"variant": baseline, "baseline": baseline, "data": data}, context(tmp_path / "g1"))
    same = GateFacts.model_validate(outputs.facts)
    assert same.verdict.passed
    assert same.accuracy == same.baseline_accuracy == 1.0
    assert (same.lost, same.won, same.flip_rate) == (0, 0, 0.0)
    assert np.load(outputs.files["scores"].path).shape == (2, N)

    outputs = gate(settings, {"variant": worse, "baseline": baseline, "data": data}, context(tmp_path / "g2"))
    other = GateFacts.model_validate(outputs.facts)
    assert other.verdict.verdict is Decision.FAIL
    assert other.lost == round((1 - other.accuracy) * N)
    assert other.won == 0
    assert other.flip_rate == pytest.approx(other.lost / N)


def test_gate_names_broken_predictions(tmp_path, data, weights):
    baseline = predictions(tmp_path, "base", linear_model(tmp_path / "a.onnx", weights), data)
    poisoned = np.load(baseline.path)
    poisoned[5] = np.nan
    np.save(tmp_path / "poisoned.npy", poisoned)
    settings = GateSettings(task=Task.CLASSIFICATION, budget=BUDGET)
    inputs = {"variant": given(tmp_path / "poisoned.npy", "predictions"), "baseline": baseline, "data": data}
    outputs = gate(settings, inputs, context(tmp_path / "g"))
    facts = GateFacts.model_validate(outputs.facts)
    assert facts.verdict.verdict is Decision.FAIL
    assert facts.fault == "non_finite"
    assert facts.accuracy is None
    assert not outputs.files

    with pytest.raises(QualityGateError, match="checkpoint itself"):
        gate(settings, inputs | {"baseline": inputs["variant"]}, context(tmp_path / "h"))


def test_gate_refuses_predictions_of_another_split(tmp_path, data, weights):
    baseline = predictions(tmp_path, "base", linear_model(tmp_path / "a.onnx", weights), data)
    settings = GateSettings(split=SplitName.VALIDATION, task=Task.CLASSIFICATION, budget=BUDGET)
    with pytest.raises(DataError) as refusal:
        gate(settings, {"variant": baseline, "baseline": baseline, "data": data}, context(tmp_path / "g"))
    assert "40 samples" in str(refusal.value)
    assert "900" in str(refusal.value)


@pytest.mark.parametrize("task", [Task.REGRESSION, Task.UNLABELLED])
def test_gate_of_other_tasks(tmp_path, task):
    rng = np.random.default_rng(3)
    samples = {split: rng.normal(size=(400, 4)).astype(np.float32) for split in SplitName}
    targets = {split: x[:, :2] * 2 for split, x in samples.items()} if task is Task.REGRESSION else None
    (tmp_path / "data").mkdir()
    write_dataset(tmp_path / "data", samples, targets, Preprocess())
    exact = samples[SplitName.TEST][:, :2] * 2
    files = {"baseline": exact, "near": exact * 1.001, "far": exact + 1}
    inputs = {}
    for name, array in files.items():
        np.save(tmp_path / f"{name}.npy", array.astype(np.float32))
        inputs[name] = given(tmp_path / f"{name}.npy", "predictions")
    data = given(tmp_path / "data", "dataset")
    settings = GateSettings(task=task, budget=BUDGET, resamples=999)
    for name, expected in (("near", Decision.PASS), ("far", Decision.FAIL)):
        outputs = gate(
            settings, {"variant": inputs[name], "baseline": inputs["baseline"], "data": data}, context(tmp_path / name)
        )
        facts = GateFacts.model_validate(outputs.facts)
        assert facts.verdict.verdict is expected
        assert (facts.lost is None) == (task is Task.REGRESSION)


def test_steps_name_their_bodies():
    assert (PREDICT.body, GATE.body, SCREEN.body) == (
        f"{predict.__module__}:run",
        f"{gate.__module__}:run",
        f"{gate.__module__}:run",
    )
    assert len({PREDICT.name, GATE.name, SCREEN.name}) == 3
