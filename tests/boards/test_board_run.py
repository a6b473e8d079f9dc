"""Runs with several boards: side by side, one at a time each, and one of them stopped in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemill.device import lease as leases
from tests.boards.sshd import needs_sshd
from tests.boards.test_board_ssh import at_work
from tests.boards.test_lease import group, wait_until

pytestmark = [needs_sshd, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


class Run:
    """A run in a process of its own."""

    def __init__(self, lab, name: str, budget_s: float, *boards: str) -> None:
        folder = lab.folder / name
        folder.mkdir(exist_ok=True)
        self.log = folder / "log.txt"
        self.began = time.monotonic()
        command = [sys.executable, "-m", "tests.boards.run_on_boards", str(lab.inventory), str(folder), str(budget_s)]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        kept["EDGEMILL_HOME"] = str(lab.folder / "home")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *boards],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=kept,
            )

    def result(self, limit_s: float = 150):
        self.process.wait(limit_s)
        text = self.log.read_text()
        lines = [line for line in text.splitlines() if line.startswith("RESULT ")]
        assert lines, text
        return json.loads(lines[0].removeprefix("RESULT "))


def test_two_boards_one_of_which_is_stopped_in_the_middle(lab):
    lab.board("stays", lease_s=30)
    board, stopped = lab.board("stops", lease_s=30)
    run = Run(lab, "run", 6, "stays", "stops")
    wait_until((stopped.folder / "board" / "lease.json").exists, 120)
    lease = at_work(stopped)
    stopped.stop()
    wait_until(lambda: leases.read(stopped.folder / "board") is None and not group(lease.work.group))
    told = run.result()
    assert told["sources"] == ["measured:board:stays", None]
    assert told["answered"][0] > 0
    assert list(told["missing"]) == ["stops"]
    assert "The connection to the board was lost." in told["missing"]["stops"]
    assert f"board stops at 127.0.0.1:{board.ssh.port}" in told["missing"]["stops"]
    # the next run finds what stands, and gets what was missing
    stopped.start()
    again = Run(lab, "again", 6, "stays", "stops").result()
    assert again["sources"] == ["measured:board:stays", "measured:board:stops"]
    assert again["missing"] == {}


def test_a_board_gets_one_measurement_at_a_time(lab):
    lab.board("b1", lease_s=30, wait_s=0)  # a second one at once would be refused
    told = Run(lab, "run", 1, "b1", "b1").result()
    assert told["sources"] == ["measured:board:b1"] * 2
    assert told["missing"] == {}
