"""The very first moments of a state folder: two runs at once, and kills while the databases are created."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.history import history, intact
from tests.support.runs import ROOT, environment, start

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = (
    "stages.distill=null",
    "stages.prune=null",
    "stages.quantize.schemes=[int8_static]",
    "targets=[x86-64-vnni]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.3",
)
CREATE = """
import sys
import tasks
from tasks.database import ensure_database
print("ready", flush=True)
sys.stdin.readline()
ensure_database(sys.argv[1])
"""


def test_two_first_runs_at_once(tmp_path):
    home = tmp_path / "home"
    logs = [tmp_path / "one.log", tmp_path / "two.log"]
    runs = [start(home, *SMALL, log=log) for log in logs]
    assert [run.wait(timeout=900) for run in runs] == [0, 0], [log.read_text()[-2000:] for log in logs]
    found = history(home, "digits")["runs"]
    assert [name for name, run in found.items() if run["parent"] is None] == ["digits"]
    assert {run["status"] for run in found.values()} == {"FINISHED"}
    ran = [line.split(maxsplit=1)[1] for log in logs for line in log.read_text().splitlines() if line[:5] == "done "]
    assert intact(home / "prefect" / "prefect.db")
    assert {"data.load", "ingest.checkpoint", "benchmark.latency"} <= {line.split()[0] for line in ran}
    assert len(list(home.glob("steps/*/*.json"))) == len({line.rsplit("  ", 1)[0] for line in ran})


def creators(home: Path, address: str, count: int) -> list[subprocess.Popen[bytes]]:
    """Processes that wait for a line before they create the database."""
    found = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, address],
            env=environment(home),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(count)
    ]
    for process in found:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    return found


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_a_database_is_created_by_one_of_many_and_a_killed_creator_leaves_nothing(tmp_path):
    from mlflow import MlflowClient

    path = tmp_path / "mlflow" / "mlflow.db"
    address = f"sqlite:///{path}"
    victim, *others = creators(tmp_path, address, 4)
    go(victim)
    fresh = path.with_name(f".new-{path.name}")
    deadline = time.monotonic() + 120
    while not (fresh.exists() and fresh.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(victim.pid, signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not path.exists()
    for process in others:
        go(process)
    assert [process.wait(timeout=300) for process in others] == [0, 0, 0]
    assert intact(path)
    assert [experiment.name for experiment in MlflowClient(address).search_experiments()] == ["Default"]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
