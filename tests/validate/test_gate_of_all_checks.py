"""`validate.gate` with declared checks, with faults, and for anomaly detectors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import roc_auc_score

from edgemill.artifact import Artifact
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.errors import DataError, QualityGateError
from edgemill.recipe import Budget, Gates, Preprocess, Task
from edgemill.step import InputFile, StepContext
from edgemill.validate import Decision, GateFacts, GateSettings
from edgemill.validate.gate import run as gate
from edgemill.validate.scores import split_score

GATES = {
    "top_k": {"k": 2, "max_drop": 0.02},
    "macro_f1": {"max_drop": 0.02},
    "classes": {"max_drop": 0.05},
    "flips": {"max_rate": 0.05},
    "calibration_error": {"max_rise": 0.03},
    "fidelity": {"min_agreement": 0.9, "max_kl": 0.1},
}
N = 2000


def judge(folder: Path, task: Task, baseline, variant, labels, x=None, **settings) -> tuple[GateFacts, dict]:
    """Write dataset and predictions, and run the step."""
    folder.mkdir()
    x = np.zeros((len(baseline), 3), np.float32) if x is None else x
    (folder / "data").mkdir()
    split = dict.fromkeys(SplitName, x)
    write_dataset(folder / "data", split, None if labels is None else dict.fromkeys(SplitName, labels), Preprocess())
    paths = {"data": folder / "data"}
    for name, outputs in (("baseline", baseline), ("variant", variant)):
        paths[name] = folder / f"{name}.npy"
        np.save(paths[name], np.asarray(outputs, np.float32))
    inputs = {
        name: InputFile(path, Artifact(digest="0" * 64, filename=path.name, kind="t", size_bytes=1, step="t"))
        for name, path in paths.items()
    }
    for name in ("out", "resume"):
        (folder / name).mkdir()
    budget = settings.pop("budget", Budget(max_accuracy_drop=0.02, confidence=0.95))
    rule = GateSettings(task=task, budget=budget, resamples=999, **settings)
    outputs = gate(rule, inputs, StepContext(folder / "out", folder / "resume", 0, lambda *_: None))
    return GateFacts.model_validate(outputs.facts), outputs.files


@pytest.fixture
def classifier():
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 5
    logits = rng.normal(size=(N, 5)) + 5 * np.eye(5)[labels]
    return special.softmax(logits, 1), special.softmax(logits + 0.1 * rng.normal(size=logits.shape), 1), labels


def test_every_declared_check_has_a_verdict_and_all_must_pass(tmp_path, classifier):
    facts, files = judge(tmp_path / "a", Task.CLASSIFICATION, *classifier, gates=Gates.model_validate(GATES))
    names = [check.gate for check in facts.checks]
    assert names == [
        "accuracy", "top_k", "macro_f1", "classes", "flips", "calibration_error", "fidelity_agreement", "fidelity_kl",
    ]  # fmt: skip
    assert all(check.passed for check in facts.checks)
    assert facts.verdict == facts.main == facts.checks[0]
    assert len(facts.groups) == 5
    assert sum(group.lost for group in facts.groups) == facts.lost
    assert "scores" in files


def test_one_failing_check_stops_a_model_whose_accuracy_is_fine(tmp_path, classifier):
    baseline, variant, labels = classifier
    gates = Gates.model_validate({"flips": {"max_rate": 0.0001}, "fidelity": {"min_agreement": 0.9999}})
    answers = variant.copy()
    rows = np.flatnonzero(variant.argmax(1) == labels)[:5]
    answers[rows] = np.roll(answers[rows], 1, axis=1)
    facts, _ = judge(tmp_path / "a", Task.CLASSIFICATION, baseline, answers, labels, gates=gates)
    assert facts.main.passed
    assert facts.verdict.gate == "flips"
    assert facts.verdict.verdict is Decision.FAIL


def test_undecided_outranks_pass(tmp_path, classifier):
    gates = Gates.model_validate({"classes": {"max_drop": 0.001}})
    facts, _ = judge(tmp_path / "a", Task.CLASSIFICATION, *classifier, gates=gates)
    assert facts.verdict.gate == "classes"
    assert facts.verdict.verdict is Decision.INCONCLUSIVE
    assert facts.verdict.samples_needed > N


@pytest.mark.parametrize(
    ("spoil", "fault", "has_numbers"),
    [
        (lambda p: np.where(np.arange(N)[:, None] == 3, np.nan, p), "non_finite", False),
        (lambda p: p[:, :4], "wrong_shape", False),
        (lambda p: p[:-1], "wrong_shape", False),
        (lambda p: np.roll(p, 2, axis=1), "class_order", True),
        (lambda p: np.round(255 * p), "not_dequantized", True),
        (lambda p: p * 0 + p[0], "constant", True),
    ],
)
def test_broken_predictions_fail_every_check_by_name(tmp_path, classifier, spoil, fault, has_numbers):
    baseline, variant, labels = classifier
    facts, files = judge(
        tmp_path / "a", Task.CLASSIFICATION, baseline, spoil(variant), labels, gates=Gates.model_validate(GATES)
    )
    assert facts.fault == fault
    assert len(facts.checks) == 8
    for check in facts.checks:
        assert check.verdict is Decision.FAIL
        assert check.reason.startswith(f"{fault}: ")
    assert facts.baseline_accuracy > 0.9
    assert (facts.accuracy is not None) == has_numbers == ("scores" in files)


@pytest.mark.parametrize(("label", "fault"), [(-1, "labels_missing"), (7, "label_out_of_range")])
def test_broken_labels_fail_every_check_by_name(tmp_path, classifier, label, fault):
    baseline, variant, labels = classifier
    labels = np.where(np.arange(N) < 3, label, labels)
    facts, _ = judge(tmp_path / "a", Task.CLASSIFICATION, baseline, variant, labels, gates=Gates.model_validate(GATES))
    assert {check.verdict for check in facts.checks} == {Decision.FAIL}
    assert facts.fault == fault
    assert facts.baseline_accuracy is None


def test_a_class_without_samples_fails_its_check_only(tmp_path, classifier):
    baseline, variant, labels = (array[np.arange(N) % 5 != 4] for array in classifier)
    gates = Gates.model_validate({"classes": {"max_drop": 0.05}})
    facts, _ = judge(tmp_path / "a", Task.CLASSIFICATION, baseline, variant, labels, gates=gates)
    assert facts.main.passed
    assert facts.verdict.gate == "classes"
    assert facts.verdict.verdict is Decision.FAIL
    assert facts.fault == "class_without_samples"


def test_functions_of_the_recipe_see_stored_samples_and_outputs(tmp_path, classifier, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "mine.py").write_text(
        "def half(x, labels):\n"
        "    assert x.dtype == 'uint8' and x.shape == (2000, 4) and labels.shape == (2000,)\n"
        "    return ['dark' if row[0] < 128 else 'light' for row in x]\n"
        "def top(outputs, labels):\n"
        "    assert outputs.dtype == 'float32'\n"
        "    return float((outputs.argmax(1) == labels).mean())\n"
    )
    x = np.random.default_rng(1).integers(0, 256, (N, 4), dtype=np.uint8)
    gates = Gates.model_validate(
        {
            "slices": {"function": "python:mine:half", "max_drop": 0.05},
            "metric": {"name": "top", "function": "python:mine:top", "better": "higher", "max_loss": 0.02},
        }
    )
    facts, _ = judge(tmp_path / "a", Task.CLASSIFICATION, *classifier, x=x, gates=gates)
    assert [check.gate for check in facts.checks] == ["accuracy", "slices", "top"]
    assert facts.verdict.passed
    assert [group.name for group in facts.groups] == ["dark", "light"]


def test_regression_checks(tmp_path):
    rng = np.random.default_rng(2)
    targets = rng.normal(size=(N, 1)).astype(np.float32)
    usual = targets + 0.1 * rng.normal(size=targets.shape)
    gates = Gates.model_validate(
        {"rmse": {"max_rise": 0.02}, "r2": {"max_drop": 0.02}, "fidelity": {"min_sqnr_db": 20}}
    )
    near, _ = judge(
        tmp_path / "a", Task.REGRESSION, usual, usual + 0.01 * rng.normal(size=usual.shape), targets, gates=gates
    )
    assert [check.verdict for check in near.checks] == [Decision.PASS] * 4
    assert near.checks[0].method.startswith("paired mean")
    far, _ = judge(
        tmp_path / "b", Task.REGRESSION, usual, usual + 0.5 * rng.normal(size=usual.shape), targets, gates=gates
    )
    assert [check.verdict for check in far.checks] == [Decision.FAIL] * 4
    assert far.fault is None


def anomalies(n: int = N):
    rng = np.random.default_rng(3)
    labels = (rng.random(n) < 0.4).astype(np.int64)
    return labels, (rng.normal(size=n) + 2 * labels)[:, None]


def test_an_anomaly_score(tmp_path):
    labels, usual = anomalies()
    rng = np.random.default_rng(4)
    near = usual + 0.02 * rng.normal(size=usual.shape)
    facts, files = judge(tmp_path / "a", Task.ANOMALY, usual, near, labels)
    assert facts.verdict.passed
    assert facts.baseline_accuracy == pytest.approx(roc_auc_score(labels, usual[:, 0]))
    assert facts.accuracy == pytest.approx(roc_auc_score(labels, near[:, 0]))
    assert facts.lost is None
    assert "DeLong" in facts.verdict.method
    assert np.load(files["scores"].path).shape == (2, N)
    blind, _ = judge(tmp_path / "b", Task.ANOMALY, usual, rng.normal(size=usual.shape), labels)
    assert blind.verdict.verdict is Decision.FAIL
    with pytest.raises(QualityGateError, match="ranks anomalous samples below"):
        judge(tmp_path / "c", Task.ANOMALY, -usual, near, labels)
    alone, _ = judge(tmp_path / "d", Task.ANOMALY, usual, near, labels * 0)
    assert alone.fault == "class_without_samples"
    assert alone.verdict.verdict is Decision.FAIL


def test_an_autoencoder_is_scored_by_its_reconstruction_error(tmp_path):
    labels, _ = anomalies()
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, 4, 4, 1)).astype(np.float32)
    error = (0.2 + 0.2 * labels)[:, None, None, None]
    usual = x + error * rng.normal(size=x.shape)
    near = usual + 0.005 * rng.normal(size=x.shape)
    facts, _ = judge(tmp_path / "a", Task.ANOMALY, usual, near, labels, x)
    assert facts.verdict.passed
    scores = ((usual.astype(np.float32) - x) ** 2).mean(axis=(1, 2, 3))
    assert facts.baseline_accuracy == pytest.approx(roc_auc_score(labels, scores), abs=1e-5)
    assert split_score(Task.ANOMALY, usual, labels, x) == pytest.approx(facts.baseline_accuracy, abs=1e-5)
    with pytest.raises(DataError, match="no anomaly score"):
        judge(tmp_path / "b", Task.ANOMALY, usual[:, :2], near[:, :2], labels, x)


def test_score_of_a_split():
    outputs, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
    assert split_score(Task.CLASSIFICATION, outputs, labels) == pytest.approx(2 / 3)
    assert split_score(Task.REGRESSION, outputs[:, :1], np.array([[1.0], [1.0], [0.0]])) == pytest.approx(-1 / 3)
    assert split_score(Task.ANOMALY, outputs[:, :1], np.array([1, 0, 0])) == 1
    assert split_score(Task.ANOMALY, outputs[:, :1], np.array([0, 0, 0])) is None
    assert split_score(Task.UNLABELLED, outputs, None) is None
    assert split_score(Task.CLASSIFICATION, outputs * np.nan, labels) is None
    assert split_score(Task.CLASSIFICATION, outputs, labels + 5) is None
    assert split_score(Task.CLASSIFICATION, outputs[:0], labels[:0]) is None
    with pytest.raises(DataError):
        split_score(Task.CLASSIFICATION, outputs, None)
    with pytest.raises(DataError):
        split_score(Task.ANOMALY, outputs, np.array([0, 1, 1]))
