"""The lease of a board, with real processes that are killed, stopped, and left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from edgemill.device import lease as leases
from edgemill.errors import ToolchainError

KEEPER = """
import subprocess, sys, time
from pathlib import Path
from edgemill.device import lease as leases
from edgemill.device.watchdog import Watchdog
board, duration = Path(sys.argv[1]), float(sys.argv[2])
lease = leases.take(board, "keeper", duration)
(board / "work" / lease.id).mkdir(parents=True)
watchdog = Watchdog(board, lease.id, board / "work" / lease.id)
work = subprocess.Popen(["sh", "-c", "sleep 100 & sleep 100"], start_new_session=True)
lease = leases.prolong(board, lease, leases.now() + duration, leases.work_of(work.pid))
print(work.pid, flush=True)
if sys.argv[3:]:
    leases.end_work(lease)
    work.wait()
    leases.release(board, lease.id)
    watchdog.dismiss()
else:
    time.sleep(100)
"""


def wait_until(condition, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def group(number):
    """Processes of a group that are not dead."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == number and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


@pytest.fixture
def keeper(tmp_path):
    started = []

    def start(duration, *more):
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(tmp_path), str(duration), *more], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        work = int(process.stdout.readline())
        return process, work

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_one_has_it_and_the_other_learns_who_and_until_when(tmp_path):
    mine = leases.take(tmp_path, "me", 60)
    with pytest.raises(leases.HeldError) as error:
        leases.take(tmp_path, "you", 60)
    assert "me, until 20" in str(error.value)
    leases.release(tmp_path, "of somebody else")
    assert leases.read(tmp_path) == mine
    leases.release(tmp_path, mine.id)
    assert leases.take(tmp_path, "you", 60).owner == "you"


def test_it_ends_by_itself_and_cannot_be_prolonged_then(tmp_path):
    mine = leases.take(tmp_path, "me", 0.2)
    mine = leases.prolong(tmp_path, mine, leases.now() + 0.3)
    time.sleep(0.35)
    with pytest.raises(ToolchainError, match="ran out"):
        leases.prolong(tmp_path, mine, leases.now() + 60)
    yours = leases.take(tmp_path, "you", 60)
    with pytest.raises(ToolchainError) as error:
        leases.prolong(tmp_path, mine, leases.now() + 60)
    assert "held by you" in error.value.got
    assert leases.read(tmp_path) == yours


def test_a_lease_of_before_the_last_boot_is_over(tmp_path):
    mine = leases.take(tmp_path, "me", 60)
    (tmp_path / "lease.json").write_text(mine.model_copy(update={"boot": "another"}).model_dump_json())
    assert leases.take(tmp_path, "you", 60).owner == "you"


def test_a_damaged_lease_keeps_nobody_away(tmp_path):
    (tmp_path / "lease.json").write_text("{")
    assert leases.take(tmp_path, "me", 60).owner == "me"


def test_a_process_that_got_the_number_of_the_work_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as other:
        mine = leases.take(tmp_path, "me", 60)
        work = leases.Work(group=other.pid, started=leases.work_of(other.pid).started - 1)
        leases.end_work(mine.model_copy(update={"work": work}))
        time.sleep(0.2)
        assert other.poll() is None
        leases.end_work(mine.model_copy(update={"work": leases.work_of(other.pid)}))
        assert other.wait(5) == -signal.SIGKILL


def test_work_that_ends_in_order_frees_the_board(keeper, tmp_path):
    process, work = keeper(60, "end")
    assert process.wait(10) == 0
    assert leases.read(tmp_path) is None
    assert not group(work)


def test_the_work_of_a_killed_keeper_ends_at_once(keeper, tmp_path):
    process, work = keeper(60)
    assert len(group(work)) >= 2
    process.kill()
    wait_until(lambda: not group(work) and leases.read(tmp_path) is None)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_keeper_that_hangs_is_ended_when_the_lease_ends(keeper, tmp_path):
    process, work = keeper(2)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(leases.HeldError):
        leases.take(tmp_path, "you", 60)
    wait_until(lambda: process.poll() is not None)
    wait_until(lambda: not group(work) and leases.read(tmp_path) is None)


def test_whoever_comes_next_ends_the_work_that_no_watchdog_ended(keeper, tmp_path):
    process, work = keeper(2)
    watchdog = next(one for one in psutil.Process(process.pid).children() if one.pid != work)
    watchdog.kill()
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.1)
    assert group(work)
    assert leases.take(tmp_path, "you", 60).owner == "you"
    wait_until(lambda: not group(work))
