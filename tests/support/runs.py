"""Run the real command line in a process of its own, as a user does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "recipe.yaml"

# the digits example, trained just long enough to have something to compress
SHORT = (
    "stages.distill.epochs=6",
    "stages.prune.epochs=3",
    "stages.quantize.qat.epochs=1",
    "stages.quantize.schemes=[int8_static,int8_qat]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.3",
)


@dataclass(frozen=True)
class Finished:
    """Exit status, the summary on standard output, and what was said on standard error."""

    code: int
    summary: dict[str, Any]
    log: str

    @property
    def steps_run(self) -> list[str]:
        """Names of the steps that really ran."""
        return [line.split()[1] for line in self.log.splitlines() if line.startswith("done ")]


def command(recipe: Path, *overrides: str) -> list[str]:
    options = [part for item in overrides for part in ("--set", item)]
    return [sys.executable, "-m", "edgemill.cli", "optimize", str(recipe), "--json", *options]


def environment(state: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return kept | {"EDGEMILL_HOME": str(state), "PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


def start(state: Path, *overrides: str, log: Path, recipe: Path = DIGITS, **more: str) -> subprocess.Popen[bytes]:
    """Start the command in a process group of its own; what it says goes to `log`."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            command(recipe, *overrides),
            env=environment(state, **more),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        )


def survivors(state: Path, patience_s: float) -> list[str]:
    """Command lines of the processes that still use a state folder after a while."""
    deadline = time.monotonic() + patience_s
    while (found := list(_users_of(state))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _users_of(state: Path) -> Iterator[str]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("EDGEMILL_HOME") == str(state) and process.status() != psutil.STATUS_ZOMBIE:
                yield " ".join(process.cmdline())


def optimize(state: Path, *overrides: str, recipe: Path = DIGITS, **more: str) -> Finished:
    done = subprocess.run(
        command(recipe, *overrides),
        env=environment(state, **more),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    summary = json.loads(done.stdout) if done.stdout.strip() else {}
    return Finished(done.returncode, summary, done.stderr)
