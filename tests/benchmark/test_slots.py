import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgemill.benchmark.slots import exclusive, shared
from edgemill.errors import StoreError

HOLD = """
import sys, time
from pathlib import Path
from edgemill.benchmark.slots import exclusive, shared
with {slot}(lambda fraction, message: print("waiting", flush=True), Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""


class Holder:
    """Another process that holds the slot until told to let go."""

    def __init__(self, slot, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD.format(slot=slot), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def let_go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def held(slot, folder, seconds=0.6):
    """Whether a thread of this process gets the slot within some time, what it was told, and the thread."""
    got, messages = threading.Event(), []

    def attempt():
        with slot(lambda fraction, message: messages.append(message), folder):
            got.set()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    return got.wait(seconds), messages, thread


def test_heavy_steps_run_side_by_side(tmp_path):
    with Holder("shared", tmp_path) as first:
        assert first.line() == "held"
        with Holder("shared", tmp_path) as second:
            assert second.line() == "held"


@pytest.mark.parametrize(("holder", "asked"), [("exclusive", shared), ("shared", exclusive), ("exclusive", exclusive)])
def test_a_measurement_is_alone(tmp_path, holder, asked):
    with Holder(holder, tmp_path) as other:
        assert other.line() == "held"
        got, messages, thread = held(asked, tmp_path)
        assert not got
        assert "measurement" in messages[0]
        other.let_go()
        thread.join(10)
        assert not thread.is_alive()


def test_lock_dies_with_its_holder(tmp_path):
    with Holder("exclusive", tmp_path) as other:
        assert other.line() == "held"
        other.process.kill()
        other.process.wait()
        got, _, _ = held(shared, tmp_path, seconds=10)
        assert got


def test_a_waiting_measurement_goes_before_later_heavy_steps(tmp_path):
    with ExitStack() as stack:
        early = stack.enter_context(Holder("shared", tmp_path))
        assert early.line() == "held"
        measurement = stack.enter_context(Holder("exclusive", tmp_path))
        assert measurement.line() == "waiting"
        got, messages, thread = held(shared, tmp_path)
        assert not got, "a later step overtook the waiting measurement"
        assert messages
        early.let_go()
        assert measurement.line() == "held"
        assert thread.is_alive()
        measurement.let_go()
        thread.join(10)
        assert not thread.is_alive()


def test_an_error_inside_releases_the_slot(tmp_path):
    for slot in (shared, exclusive):
        with pytest.raises(ValueError, match="inside"), slot(lambda *_: None, tmp_path):
            raise ValueError("inside")
    assert held(exclusive, tmp_path, seconds=5)[0]


def test_threads_of_one_process_share_and_exclude_too(tmp_path):
    with shared(lambda *_: None, tmp_path):
        assert held(shared, tmp_path, seconds=5)[0]
        got, _, thread = held(exclusive, tmp_path)
        assert not got
    thread.join(10)
    assert not thread.is_alive()


def test_waiting_is_said_once_and_then_seldom(tmp_path):
    with exclusive(lambda *_: None, tmp_path):
        started = time.monotonic()
        _, messages, _ = held(shared, tmp_path, seconds=0.5)
        assert len(messages) <= 1 + (time.monotonic() - started) / 10


def test_folder_that_cannot_be_used(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(StoreError) as error, shared(lambda *_: None, missing):
        pass
    assert str(missing) in error.value.where


def test_a_link_in_place_of_the_lock_file_is_refused(tmp_path):
    target = tmp_path / "precious"
    target.write_text("content")
    (tmp_path / "edgemill-gate.lock").symlink_to(target)
    with pytest.raises(StoreError), exclusive(lambda *_: None, tmp_path):
        pass
    assert target.read_text() == "content"
