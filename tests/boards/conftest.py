from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemill.boards import BoardSettings
from edgemill.boards.inventory import Board, find_board
from edgemill.boards.measure import enroll
from edgemill.recipe import Benchmark
from edgemill.step import InputFile
from edgemill.targets import load_target
from tests.boards.sshd import Server
from tests.runtimes import models

TARGET = "x86-64-litert"
"""A target that any x86-64 machine is, whatever its features."""

SHORT = Benchmark(rounds=8, runs_per_round=4, time_budget_s=0.5)
ENDLESS = Benchmark(rounds=8, runs_per_round=4, time_budget_s=120, precision=1e-6)


@dataclass
class Lab:
    """Boards behind SSH servers, and an inventory of them."""

    folder: Path
    stack: ExitStack

    @property
    def inventory(self) -> Path:
        return self.folder / "boards.yaml"

    def board(self, name: str, *, enrolled: bool = True, **entry) -> tuple[Board, Server]:
        """A new board with a server of its own."""
        server = Server(self.folder / name)
        self.stack.callback(server.stop)
        hop = server.hop() | entry.pop("hop", {})
        fields = {"target": TARGET, "ssh": hop, "python": sys.executable, "folder": str(server.folder / "board")}
        lines = [f"  {key}: {json.dumps(value)}\n" for key, value in (fields | entry).items()]
        with self.inventory.open("a") as stream:
            stream.write(f"{name}:\n{''.join(lines)}")
        board = find_board(name, self.inventory)
        return (enroll(board, self.inventory) if enrolled else board), server


@pytest.fixture
def lab(tmp_path):
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


@pytest.fixture(scope="module")
def shared_lab(tmp_path_factory):
    with ExitStack() as stack:
        yield Lab(tmp_path_factory.mktemp("lab"), stack)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, InputFile]:
    """A variant, its baseline and data."""
    folder = tmp_path_factory.mktemp("files")
    return {
        "variant": models.input_file(models.dense_tflite(folder / "v.tflite", "int8"), "tflite"),
        "baseline": models.input_file(models.dense_onnx(folder / "b.onnx"), "onnx"),
        "data": models.input_file(models.dataset(folder / "data", models.inputs(20)), "dataset"),
    }


@pytest.fixture(scope="session")
def short() -> BoardSettings:
    return BoardSettings(target=load_target(TARGET), benchmark=SHORT)


@pytest.fixture(scope="session")
def endless() -> BoardSettings:
    return BoardSettings(target=load_target(TARGET), benchmark=ENDLESS)
