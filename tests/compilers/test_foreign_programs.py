"""Programs of other makers: they may hang, crash, or not be there, and each is one clear error."""

from __future__ import annotations

import sys
import time

import pytest

from edgemill.compile.foreign import plain_answers, run_program, single_sample
from edgemill.errors import ToolchainError
from tests.compilers import compiler_graphs as graphs
from tests.compilers.conftest import in_onnxruntime


def test_what_a_program_prints_is_returned(tmp_path):
    told = run_program(["/bin/sh", "-c", "pwd; echo aside >&2"], tmp_path, 20, "m.onnx")
    assert told.split() == [str(tmp_path), "aside"]


def test_a_hanging_program_is_ended(tmp_path):
    began = time.monotonic()
    with pytest.raises(ToolchainError, match="did not come to an end") as error:
        run_program(
            [sys.executable, "-c", "import time; print('so far', flush=True); time.sleep(60)"], tmp_path, 2, "m"
        )
    assert time.monotonic() - began < 30
    assert "so far" in error.value.got
    assert "2 s" in error.value.expected


def test_a_crash_is_told_with_its_signal_and_last_words(tmp_path):
    with pytest.raises(ToolchainError, match="sh failed") as error:
        run_program(["/bin/sh", "-c", "echo corrupt graph; kill -11 $$"], tmp_path, 20, "m.onnx")
    assert "signal 11" in error.value.got
    assert "corrupt graph" in error.value.got
    assert error.value.where == "m.onnx"


def test_an_exit_status_is_told(tmp_path):
    with pytest.raises(ToolchainError) as error:
        run_program(["/bin/sh", "-c", "exit 3"], tmp_path, 20, "m.onnx")
    assert "exit status 3" in error.value.got


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(ToolchainError, match="cannot be started"):
        run_program([str(tmp_path / "nowhere")], tmp_path, 20, "m.onnx")


def test_the_batch_becomes_one(tmp_path):
    path = graphs.write("dense", tmp_path / "dense.onnx")
    assert single_sample(path).shape == (1, *graphs.FEATURES)
    x = graphs.samples("dense", 3)
    assert plain_answers(path, x) == pytest.approx(in_onnxruntime(path, x), abs=1e-6)
