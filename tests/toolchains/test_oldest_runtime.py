"""Files in the oldest runtime of their target's range."""

import numpy as np
import pytest

from edgemill.artifact import Artifact
from edgemill.errors import ToolchainError
from edgemill.execute import Call, execute, release_workers
from edgemill.lack import told
from edgemill.store import Store
from edgemill.targets import load_target
from edgemill.toolchains import installed
from edgemill.validate import OLDEST, OldestSettings
from tests.runtimes import models

TARGET = load_target("x86-64-vnni")


@pytest.fixture(autouse=True)
def _only_where_it_is_installed():
    assert TARGET.oldest is not None
    if lacks := installed(TARGET.oldest).lacks:
        pytest.skip(f"the oldest onnxruntime: {told(lacks)}")
    yield
    release_workers()


def put(store, path, kind) -> Artifact:
    return store.put(path, kind=kind, step="test", parents=(), signature=None, facts={})


def run(tmp_path, model, answers, **settings):
    store = Store(tmp_path / "home")
    np.save(tmp_path / "predictions.npy", answers)
    inputs = {
        "model": put(store, model, "onnx"),
        "data": put(store, models.dataset(tmp_path / "data", models.inputs(20)), "dataset"),
        "predictions": put(store, tmp_path / "predictions.npy", "predictions"),
    }
    call = Call(OLDEST, OldestSettings(split="calibration", **settings), inputs, toolchain=TARGET.oldest)
    return execute(store, call, lambda *_: None).record.facts


def right_answers():
    return models.inputs(20) @ models.WEIGHTS.T + models.BIAS


def test_equal_answers_prove_the_range(tmp_path):
    facts = run(tmp_path, models.dense_onnx(tmp_path / "m.onnx"), right_answers())
    assert facts["version"].startswith(TARGET.runtime.minimum)
    assert (facts["compared"], facts["agreement"]) == (20, 1.0)


def test_other_answers_are_named_with_the_version(tmp_path):
    with pytest.raises(ToolchainError, match=r"onnxruntime 1\.20.*the oldest of the target's range"):
        run(tmp_path, models.dense_onnx(tmp_path / "m.onnx"), right_answers()[::-1].copy())


def test_what_the_oldest_runtime_cannot_load_is_refused(tmp_path):
    path = models.dense_onnx(tmp_path / "m.onnx", opset=22)
    with pytest.raises(ToolchainError, match="cannot load"):
        run(tmp_path, path, right_answers())


def test_only_the_first_samples_are_run(tmp_path):
    assert run(tmp_path, models.dense_onnx(tmp_path / "m.onnx"), right_answers(), samples=7)["compared"] == 7
