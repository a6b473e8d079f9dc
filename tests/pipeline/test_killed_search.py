"""A search killed in the middle of a trial: the next run loses nothing but that trial's unfinished step."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter

import pytest

from tests.support.runs import optimize, start, survivors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SMALL = (
    "stages.distill.epochs=4",
    "stages.prune.epochs=2",
    "stages.quantize.schemes=[int8_static]",
    "targets=[x86-64-vnni]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.5",
    "search={preset: default, trials: 5, space: {width: [0.5], sparsity: [0, 0.5], clusters: [0, 16]}}",
)


def done(log: str) -> set[str]:
    """Steps that really ran, each with what it worked on; the last two words are the time it took."""
    return {" ".join(line.split()[1:-2]) for line in log.splitlines() if line.startswith("done ")}


def test_at_most_the_running_trial_is_lost(tmp_path):
    state, log = tmp_path / "home", tmp_path / "first.log"
    record = state / "runs" / "digits" / "search.json"
    first = start(state, *SMALL, log=log)
    deadline = time.monotonic() + 600
    while not record.exists() or len(json.loads(record.read_text())["trials"]) < 2:
        assert first.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    time.sleep(1.5)  # into the third trial
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert survivors(state, 30) == []
    before = json.loads(record.read_text())["trials"]

    second = optimize(state, *SMALL)

    assert second.code == 0, second.log
    search = second.summary["search"]
    assert search["resumed"]
    assert [trial for trial in search["trials"] if trial["number"] < len(before)] == before
    lost = [trial for trial in search["trials"] if trial["state"] == "failed"]
    assert [trial["cause"] for trial in lost] == ["the run was killed meanwhile"]
    assert search["trials"][lost[0]["number"] + 1]["name"] == lost[0]["name"]
    told = Counter(trial["name"] for trial in search["trials"] if trial["state"] in ("complete", "infeasible"))
    assert len(told) == 4
    assert set(told.values()) == {1}
    assert second.summary["targets"][0]["verdict"] == "PASS"
    assert len(done(log.read_text())) > 10
    assert not done(log.read_text()) & done(second.log)
