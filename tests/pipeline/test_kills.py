"""SIGKILL at 40 seeded random moments of the digits pipeline: what comes out is what an undisturbed run gives.

A moment is drawn on the timeline of an undisturbed run, some in each of its phases, and means "so
long after this event", so that it meets the same work on a faster or a busier machine.

Measurements differ from run to run, and they have a say in what is tested and chosen. So every
state folder that went through kills is compared twice: its deterministic steps with those of the
undisturbed run, and its whole result and history with a run that was never killed and finds the
same measurements in its store.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemill.artifact import digest_path
from edgemill.ledger import Entry, read_ledger
from edgemill.reproduce import Outcome, compare
from edgemill.store import StepRecord, Store
from tasks.environment import answers
from tests.support.history import history, intact
from tests.support.kills import KILLS, Survived, Timeline, live_and_die, watch_undisturbed
from tests.support.ports import free_port
from tests.support.runs import SHORT, Finished, environment, optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

FOLDERS = 4
SEED = 20261123
AT_ONCE = 2


@dataclass(frozen=True)
class Undisturbed:
    home: Path
    timeline: Timeline


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    home = tmp_path_factory.mktemp("undisturbed")
    return Undisturbed(home, watch_undisturbed(home))


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that lives on while its runs are killed."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    quiet = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true"}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment(home, **quiet), stdout=log, stderr=log, start_new_session=True
        )
    address, deadline = f"http://127.0.0.1:{port}/api", time.monotonic() + 240
    while not answers(address):
        assert process.poll() is None, (home / "server.log").read_text()
        assert time.monotonic() < deadline, (home / "server.log").read_text()
        time.sleep(0.2)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def survived(undisturbed: Undisturbed, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> list[Survived]:
    """Half of the folders with a Prefect server of each run's own, which dies with it, half with one that stays."""
    folder = tmp_path_factory.mktemp("killed")
    sources = [random.Random(SEED + number) for number in range(FOLDERS)]
    plans = [undisturbed.timeline.draw(rng) for rng in sources]
    homes = [folder / f"home{number}" for number in range(FOLDERS)]
    for home in homes:
        home.mkdir()
    services = [{}, {"PREFECT_API_URL": prefect_server}] * (FOLDERS // 2)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(live_and_die, homes, plans, sources, services))


# -- what must hold ------------------------------------------------------------------------------------


def test_forty_of_forty_kills_in_every_phase(undisturbed, survived):
    print(*(f"{name}: {a:.1f} to {b:.1f} s" for name, (a, b) in undisturbed.timeline.spans().items()), sep="\n")
    kills = [kill for item in survived for kill in item.kills]
    print("", *kills, f"{len(kills)} of {FOLDERS * sum(KILLS.values())}", sep="\n")
    assert len(kills) == FOLDERS * sum(KILLS.values())
    assert {kill.partition(",")[0] for kill in kills} == set(KILLS)


def test_every_folder_ends_with_a_result_and_nothing_was_lost_or_done_twice(survived):
    assert [fault for item in survived for fault in item.faults] == []
    assert [item.result.code for item in survived] == [0] * FOLDERS, [item.result.log[-2000:] for item in survived]


def test_nothing_is_left_behind(survived):
    for item in survived:
        assert list((item.home / "work").iterdir()) == []
        assert [path for path in item.home.rglob(".*") if path.suffix == ".tmp" or path.name.startswith(".new-")] == []
        assert sorted(path.name for path in (item.home / "runs" / "digits" / "bundles").iterdir()) == sorted(
            target["target"] for target in item.result.summary["targets"]
        )


def test_the_databases_are_whole(survived):
    for item in survived:
        assert intact(item.home / "mlflow" / "mlflow.db")
        assert not item.embedded or intact(item.home / "prefect" / "prefect.db")


def test_every_deterministic_step_gave_what_the_undisturbed_run_gave(undisturbed, survived):
    expected = read_ledger(undisturbed.home / "runs" / "digits")
    for item in survived:
        found = read_ledger(item.home / "runs" / "digits")
        comparison = compare(expected, found)
        assert [row for row in comparison.rows if row.outcome in (Outcome.DIFFERS, Outcome.FOLLOWS)] == []
        assert comparison.same
        assert comparison.count(Outcome.SAME) > 90
        assert certain_keys(found) == certain_keys(expected)


def certain_keys(entries: tuple[Entry, ...]) -> set[str]:
    """Keys of the steps that run whatever is measured, the measurements themselves included."""
    return {entry.key for entry in entries if not entry.after_varying or entry.varies}


@pytest.fixture(scope="module")
def replayed(undisturbed: Undisturbed, survived: list[Survived]) -> list[tuple[Path, Finished]]:
    """For every folder a run that was never killed, with its measurements instead of the undisturbed ones."""

    def replay(item: Survived) -> tuple[Path, Finished]:
        home = item.home.parent / f"{item.home.name}-replayed"
        home.mkdir()
        deterministic = (record for record in Store(undisturbed.home).records() if not record.varies)
        measured = (record for record in Store(item.home).records() if record.varies)
        _transplant(undisturbed.home, home, deterministic)
        _transplant(item.home, home, measured)
        return home, optimize(home, *SHORT)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(replay, survived))


def _transplant(source: Path, destination: Path, records: Iterator[StepRecord]) -> None:
    origin, store = Store(source), Store(destination)
    for record in records:
        for output in record.outputs.values():
            put = store.put(origin.path(output), kind=output.kind, step=output.step, filename=output.filename)
            assert put.digest == output.digest
        store.commit(record)


def test_the_result_is_that_of_an_undisturbed_run_with_the_same_measurements(survived, replayed):
    for item, (home, result) in zip(survived, replayed, strict=True):
        assert lasting(item.result.summary) == lasting(result.summary)
        ours, theirs = (folder / "runs" / "digits" for folder in (item.home, home))
        assert digest_path(ours / "bundles") == digest_path(theirs / "bundles")
        assert (ours / "recipe.yaml").read_text() == (theirs / "recipe.yaml").read_text()
        assert sorted(read_ledger(ours), key=str) == sorted(read_ledger(theirs), key=str)


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without the times of the run, its counts of steps, and the link to its MLflow run."""
    passing = ("started", "finished", "steps_run", "steps_cached", "links")
    return {key: value for key, value in summary.items() if key not in passing}


def test_mlflow_holds_what_an_undisturbed_run_with_the_same_measurements_writes(survived, replayed):
    for item, (home, _) in zip(survived, replayed, strict=True):
        ours, theirs = history(item.home, "digits"), history(home, "digits")
        assert [name for name, run in ours["runs"].items() if run["parent"] is None] == ["digits"]
        assert {run["status"] for run in ours["runs"].values()} == {"FINISHED"}
        assert ours["points"] == 1
        for part in theirs:
            assert ours[part] == theirs[part], part


def test_metrics_that_are_not_measured_equal_those_of_the_undisturbed_run(undisturbed, survived):
    names = ("validation_score", "size_bytes", "compressed_bytes")
    expected = history(undisturbed.home, "digits")["runs"]
    for item in survived:
        found = history(item.home, "digits")["runs"]
        assert set(found) == set(expected)
        for run, name in itertools.product(found, names):
            assert found[run]["metrics"].get(name) == expected[run]["metrics"].get(name), (run, name)
            assert set(found[run]["metrics"]) == set(expected[run]["metrics"])


def test_a_run_after_all_that_computes_nothing(survived):
    home = survived[0].home
    again = optimize(home, *SHORT)
    assert again.code == 0, again.log
    assert again.summary["steps_run"] == 0
    assert again.summary["targets"] == survived[0].result.summary["targets"]
