"""`edgemill gate` on models of our own making: the real command, real child processes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from edgemill.cli import main
from tests.mcu import mcu_models
from tests.support.ready import usable

CLASSES, FEATURES, SAMPLES = 4, 12, 9000
RECIPE = """
name: blobs
checkpoint: {path: model.onnx}
data: {source: npz, path: blobs.npz, split: {validation: 400, calibration: 100, test: 8000, seed: 1}}
budget: {max_accuracy_drop: 0.01}
gates: {classes: {max_drop: 0.03}, flips: {max_rate: 0.02}}
"""


def classifier(path: Path, weights: np.ndarray, outputs: int = CLASSES, features: int = FEATURES) -> Path:
    """Softmax of a linear map."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(weights.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(CLASSES, FEATURES)) * 0.9
    labels = rng.integers(0, CLASSES, SAMPLES)
    x = (centres[labels] + rng.normal(size=(SAMPLES, FEATURES))).astype(np.float32)
    np.savez(folder / "blobs.npz", x=x, y=labels)
    (folder / "recipe.yaml").write_text(RECIPE)
    classifier(folder / "model.onnx", centres.T)
    classifier(folder / "same.onnx", centres.T + 1e-4 * rng.normal(size=centres.T.shape))
    worse = centres.T.copy()
    worse[:, 1] *= 0.8
    classifier(folder / "worse.onnx", worse)
    classifier(folder / "swapped.onnx", centres.T[:, [1, 0, 2, 3]])
    classifier(folder / "nan.onnx", np.full_like(centres.T, np.nan))
    classifier(folder / "constant.onnx", np.zeros_like(centres.T))
    classifier(folder / "three.onnx", centres.T[:, :3], outputs=3)
    return folder


@pytest.fixture
def gate(site, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEMILL_HOME", str(site / "home"))

    def run(model: str, *options: str):
        out = tmp_path_factory.mktemp("out")
        arguments = ["gate", str(site / "recipe.yaml"), str(site / model), "--out", str(out), *options]
        return CliRunner().invoke(main, arguments), out

    return run


def test_a_model_that_lost_nothing_passes_and_every_check_is_a_test_case(gate):
    done, out = gate("same.onnx")
    assert done.exit_code == 0, done.output
    report = json.loads((out / "gate.json").read_text())
    assert report["verdict"] == "PASS"
    assert [check["gate"] for check in report["facts"]["checks"]] == ["accuracy", "classes", "flips"]
    suite = ET.parse(out / "gate.xml").getroot().find("testsuite")
    assert [case.get("name") for case in suite.iter("testcase")] == ["accuracy", "classes", "flips"]
    assert suite.get("failures") == "0"
    assert "| accuracy | " in (out / "gate.md").read_text()


def test_a_model_that_lost_points_fails_with_the_numbers(gate):
    done, out = gate("worse.onnx", "--json")
    assert done.exit_code == 3
    report = json.loads(done.stdout)
    assert report["verdict"] == "FAIL"
    accuracy = report["facts"]["checks"][0]
    assert accuracy["verdict"] == "FAIL"
    assert 0.02 < accuracy["estimate"] < 0.06
    failures = ET.parse(out / "gate.xml").getroot().findall(".//failure")
    assert "FAIL" in {failure.get("type") for failure in failures}
    assert accuracy["reason"] in {failure.get("message") for failure in failures}


def test_fifty_samples_are_inconclusive_and_say_how_many_would_decide(gate):
    done, out = gate("same.onnx", "--set", "data.split.test=50", "--set", "gates={}")
    assert done.exit_code == 3
    check = json.loads((out / "gate.json").read_text())["facts"]["verdict"]
    assert check["verdict"] == "INCONCLUSIVE"
    assert check["samples_needed"] > 50


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nan.onnx", "NaN"),
        ("constant.onnx", "same output"),
        ("swapped.onnx", "order"),
        ("three.onnx", "shape"),
    ],
)
def test_broken_models_fail_by_name(gate, model, words):
    done, out = gate(model)
    assert done.exit_code == 3, done.output
    report = json.loads((out / "gate.json").read_text())
    assert report["verdict"] == "FAIL"
    assert words in report["facts"]["verdict"]["reason"]
    assert report["facts"]["fault"]


def test_a_model_with_another_input_cannot_be_run_and_fails(gate, site):
    path = site / "wide.onnx"
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    done, out = gate("wide.onnx")
    assert done.exit_code == 3, done.output
    assert "cannot be run" in json.loads((out / "gate.json").read_text())["facts"]["verdict"]["reason"]


@pytest.mark.parametrize("model", ["missing.onnx", "blobs.npz", "recipe.yaml"])
def test_what_is_no_model_is_bad_input(gate, model):
    done, _ = gate(model)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


@pytest.mark.parametrize("target", ["cortex-m4-bare-c", "jetson-tensorrt", "ethos-u55-128", "android-arm64"])
def test_a_target_that_runs_other_files_is_refused(gate, target):
    done, _ = gate("same.onnx", "--target", target)
    assert done.exit_code == 2
    assert "does not run onnx files" in done.stderr
    assert "x86-64-vnni" in done.stderr


def test_a_tflite_file_answers_in_the_arithmetic_of_a_microcontroller(tmp_path, monkeypatch):
    usable("cortex-m-tflm")
    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(5)
    weights, x = rng.normal(size=(mcu_models.FEATURES, CLASSES)), rng.normal(size=(2000, mcu_models.FEATURES))
    np.savez(tmp_path / "blobs.npz", x=x.astype(np.float32), y=(x @ weights).argmax(1))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("test: 8000", "test: 1000"))
    classifier(tmp_path / "model.onnx", weights, features=mcu_models.FEATURES)
    other = mcu_models.dense(tmp_path / "other.tflite", (CLASSES,))  # weights of its own
    words = ["gate", str(tmp_path / "recipe.yaml"), str(other), "--out", str(tmp_path / "out"), "--json"]
    with monkeypatch.context() as bare:
        bare.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "none"))
        done = CliRunner().invoke(main, [*words, "--target", "cortex-m-tflm"])
        assert done.exit_code == 1  # neither the model's fault nor the recipe's
        assert "edgemill targets install tflm" in done.stderr
    done = CliRunner().invoke(main, [*words, "--target", "cortex-m-tflm"])
    assert done.exit_code == 3, done.output
    report = json.loads(done.stdout)
    assert report["source"] == "simulated:tflite-micro"
    assert 0 < report["facts"]["accuracy"] < 0.9
    assert report["facts"]["verdict"]["verdict"] == "FAIL"
