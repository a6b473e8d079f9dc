"""Whoever is killed leaves nobody behind: neither its child processes nor theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from edgemill.errors import ToolchainError
from edgemill.execute import execute
from edgemill.store import Store
from tests.core.test_execute import SUPPORT, call, silent
from tests.support.edgemill_test_steps import Words
from tests.support.runs import ROOT, environment, survivors

RUN = """
import sys
from pathlib import Path
from edgemill.execute import execute
from edgemill.store import Store
from tests.core.test_execute import call, silent
from tests.support.edgemill_test_steps import Words
execute(Store(Path(sys.argv[1])), call(sys.argv[2], Words(seconds=300)), silent)
"""


def start_run(state: Path, body: str, **more: str) -> subprocess.Popen[bytes]:
    more |= {"PYTHONPATH": os.pathsep.join([str(ROOT), SUPPORT])}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(state), body],
        env=environment(state, **more),
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )


def wait_for(state: Path, words: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while sum(words in line for line in survivors(state, 0)) < count:
        assert time.monotonic() < deadline, survivors(state, 0)
        time.sleep(0.05)


@pytest.mark.parametrize("group", [True, False], ids=["the group is killed", "the main process alone is killed"])
def test_no_process_outlives_a_killed_run(tmp_path, group):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    run = start_run(tmp_path, "breed", TMPDIR=str(temporary))
    wait_for(tmp_path, "sleep 300", 2)
    assert [path.read_text() for path in temporary.rglob("model.bin")] == ["half"]
    (os.killpg if group else os.kill)(run.pid, signal.SIGKILL)
    run.wait()
    assert survivors(tmp_path, patience_s=10) == []
    assert {path.suffix for path in temporary.iterdir()} <= {".lock"}  # the machine-wide slot


def test_a_run_that_ends_in_order_takes_its_guard_along(tmp_path):
    run = start_run(tmp_path, "upper")
    assert run.wait(timeout=60) == 0
    assert survivors(tmp_path, patience_s=10) == []


def test_what_a_dead_child_process_has_started_is_ended(tmp_path):
    with pytest.raises(ToolchainError, match="died") as caught:
        execute(Store(tmp_path), call("breed_and_die", Words(seconds=300)), silent)
    numbers = [int(word) for word in str(caught.value).split() if word.isdigit()]
    assert len(numbers) == 2
    deadline = time.monotonic() + 10
    while (left := [number for number in numbers if runs(number)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_scratch_folder_is_free_only_when_its_last_user_is_gone(tmp_path):
    """The next run of a step waits for a child process that a kill has left, and does not write beside it."""
    store, key = Store(tmp_path), call("sleep").key
    folder = store.workspace(key)
    hold = (
        "import sys, time; from pathlib import Path; from edgemill.store import busy\n"
        "with busy(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(1.5)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(folder)], env=environment(tmp_path), stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    store.workspace(key)
    assert holder.poll() is not None or holder.wait(timeout=1) == 0
