"""Microcontrollers at a serial line: the real line discipline of a pseudo-terminal, a firmware in its own process."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgemill.boards import BoardSettings
from edgemill.boards.inventory import Board
from edgemill.boards.mcu import measure_serial
from edgemill.boards.record import board_call, measure_and_keep
from edgemill.boards.serial_line import Line
from edgemill.data.dataset import SplitName
from edgemill.errors import RecipeError, ToolchainError
from edgemill.runtimes import open_model
from edgemill.store import Store
from edgemill.targets import load_target
from tests.boards.conftest import TARGET
from tests.runtimes import models


@contextmanager
def connected(model, fault="", digest=None, **entry):
    """A board at a pseudo-terminal."""
    ours, theirs = pty.openpty()
    name = os.ttyname(theirs)
    script = str(Path(__file__).with_name("firmware.py"))
    command = [sys.executable, script, str(ours), str(model.path), digest or model.artifact.digest, fault]
    firmware = subprocess.Popen(command, pass_fds=[ours], stderr=subprocess.DEVNULL)
    os.close(ours)
    try:
        fields = {"name": "m4", "target": TARGET, "serial": {"port": name}, "wait_s": 0.3, "lease_s": 10} | entry
        yield Board.model_validate(fields)
    finally:
        firmware.kill()
        firmware.wait()
        os.close(theirs)


@pytest.fixture(scope="module")
def model(files):
    """A file with its signature, as a compile step stores it."""
    file = files["variant"]
    signature = open_model(file.path, "tflite").signature
    return type(file)(file.path, file.artifact.model_copy(update={"signature": signature}))


def ask(board, model, folder, count=12):
    x = models.inputs(count, seed=3)
    return x, measure_serial(board, model.artifact, x, folder, lambda *_: None)


@pytest.mark.parametrize("fault", ["", "noise"])
def test_answers_are_those_of_the_file_also_over_a_noisy_line(model, tmp_path, fault):
    with connected(model, fault) as board:
        x, (figures, cycles) = ask(board, model, tmp_path)
    expected = open_model(model.path, "tflite").predict(x)
    np.testing.assert_array_equal(np.load(tmp_path / "predictions.npy"), expected)
    assert figures.source == "measured:board:m4"
    assert figures.cycles == int(np.median(cycles))
    assert figures.latency_ms == pytest.approx(figures.cycles / 168e3)
    assert (figures.ram_bytes, figures.flash_bytes) == (2048, None)


@pytest.mark.parametrize(
    ("fault", "what", "words"),
    [
        ("stranger", "nonsense", "something 1"),
        ("short", "nonsense", "done"),
        ("no memory", "does not answer as it should", "error no memory"),
        ("unplugged", "line is gone", "run again"),
    ],
)
def test_what_the_firmware_does_wrong_is_one_error(model, tmp_path, fault, what, words):
    with connected(model, fault) as board, pytest.raises(ToolchainError, match=what) as error:
        ask(board, model, tmp_path)
    assert words in str(error.value)


def test_a_firmware_that_is_silent(model, tmp_path, monkeypatch):
    monkeypatch.setattr("edgemill.boards.mcu._HELLO_S", 0.2)
    with connected(model, "silent") as board, pytest.raises(ToolchainError, match="does not answer") as error:
        ask(board, model, tmp_path)
    assert "baud" in error.value.remedy


def test_a_firmware_with_another_model_is_refused(model, tmp_path):
    with connected(model, digest="ab" * 32) as board, pytest.raises(ToolchainError, match="another model") as error:
        ask(board, model, tmp_path)
    assert error.value.got == "ab" * 32


def test_a_line_that_another_has(model, tmp_path):
    with connected(model) as board, Line(board.serial, 0), pytest.raises(ToolchainError, match="Another process has"):
        ask(board, model, tmp_path)


def test_a_line_that_is_not_there(model, tmp_path):
    with (
        connected(model, serial={"port": str(tmp_path / "none")}) as board,
        pytest.raises(ToolchainError, match="opened"),
    ):
        ask(board, model, tmp_path)
    (tmp_path / "file").write_text("")
    with (
        connected(model, serial={"port": str(tmp_path / "file")}) as board,
        pytest.raises(ToolchainError, match="no serial"),
    ):
        ask(board, model, tmp_path)
    with connected(model) as board:
        strange = board.model_copy(update={"serial": board.serial.model_copy(update={"baud": 12345})})
        with pytest.raises(RecipeError, match="speed"):
            ask(strange, model, tmp_path)


def test_its_figures_are_kept_like_those_of_a_tool(model, files, tmp_path):
    store = Store(tmp_path / "store")
    kept = {name: store.put(file.path, kind=file.artifact.kind, step="test") for name, file in files.items()}
    kept["variant"] = kept["variant"].model_copy(update={"signature": model.artifact.signature})
    settings = BoardSettings(target=load_target(TARGET), answer=SplitName.TEST)
    with connected(model) as board:
        record = measure_and_keep(store, board, board_call(board, settings, kept), lambda *_: None)
    assert record.facts["device"]["latency_ms"] == record.facts["latency_p50_ms"]
    assert record.facts["source"] == "measured:board:m4"
    assert record.facts["baseline_size_bytes"] == files["baseline"].artifact.size_bytes
    assert set(record.outputs) == {"samples", "predictions"}
