"""`edgemill up` killed in the middle of a flow run: nothing stays alive, and the next `up` just works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.history import history, intact
from tests.support.ports import free_port
from tests.support.runs import ROOT, environment, survivors

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def up(home: Path, prefect: int, mlflow: int) -> subprocess.Popen[bytes]:
    """Start the services and wait until they serve."""
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgemill.cli", "up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)],
            env=environment(home),
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline, began = time.monotonic() + 240, time.time()
    ready = home / "services.json"
    while not (ready.exists() and ready.stat().st_mtime >= began):
        assert process.poll() is None, (home / "up.log").read_text()
        assert time.monotonic() < deadline, (home / "up.log").read_text()
        time.sleep(0.2)
    return process


def small(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe["stages"] = {"quantize": {"schemes": ["int8_static"]}}
    recipe["targets"] = ["x86-64-vnni"]
    recipe["budget"] = {"max_accuracy_drop": 0.3}
    recipe["benchmark"] = {"rounds": 6}
    return recipe


def test_a_killed_up_leaves_nothing_and_the_next_one_runs_on(tmp_path):
    prefect, mlflow = free_port(), free_port()
    first = up(tmp_path, prefect, mlflow)
    with httpx.Client(base_url=f"http://127.0.0.1:{prefect}/api", timeout=60) as api:
        deployment = api.get("/deployments/name/optimize/on-demand").raise_for_status().json()
        parameters = {"recipe": small(deployment["parameters"]["recipe"])}
        path = f"/deployments/{deployment['id']}/create_flow_run"
        started = api.post(path, json={"parameters": parameters}).raise_for_status().json()["id"]
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("steps/*/*.json")):
            assert time.monotonic() < deadline, (tmp_path / "logs" / "worker.log").read_text()
            time.sleep(0.1)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert survivors(tmp_path, patience_s=20) == []
    before = {path.name: path.stat().st_ino for path in tmp_path.glob("steps/*/*.json")}
    second = up(tmp_path, prefect, mlflow)
    with httpx.Client(base_url=f"http://127.0.0.1:{prefect}/api", timeout=60) as api:
        assert api.get(f"/flow_runs/{started}").json()["state"]["type"] == "CRASHED"
        again = api.post(path, json={"parameters": parameters}).raise_for_status().json()["id"]
        deadline = time.monotonic() + 600
        while (state := api.get(f"/flow_runs/{again}").json()["state"]["type"]) not in (
            "COMPLETED",
            "FAILED",
            "CRASHED",
        ):
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
    assert state == "COMPLETED"
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=90) == 0
    assert survivors(tmp_path, patience_s=20) == []
    after = {path.name: path.stat().st_ino for path in tmp_path.glob("steps/*/*.json")}
    assert before.items() <= after.items()
    assert intact(tmp_path / "mlflow" / "mlflow.db")
    assert intact(tmp_path / "prefect" / "prefect.db")
    runs = history(tmp_path, "digits")["runs"]
    assert [name for name, run in runs.items() if run["parent"] is None] == ["digits"]
    assert {run["status"] for run in runs.values()} == {"FINISHED"}
