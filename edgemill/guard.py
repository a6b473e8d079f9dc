"""The guard: a process that ends what a killed run leaves behind.

Whoever is killed at once (SIGKILL, out of memory) cannot end its own children, and those in a
session of their own, or with a parent that was killed alone, would stay for ever. The guard waits
until the process that started it is gone, by whatever end. Then it kills all that carry its mark in
their environment, and their descendants, and removes their folder for temporary files.

The file is also the program of the guard, run by its path: it must not import Edgemill.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "EDGEMILL_GUARD"
"""Environment variable that every process of a run inherits."""

_SWEEPS = 3
_PAUSE_S = 0.1

_lock = threading.Lock()
_watched: dict[int, Watch] = {}


@dataclass(frozen=True)
class Watch:
    """A process and its guard.

    Attributes:
        mark: a process with a mark that starts with it is killed after this one.
        temporary: folder that is removed after this process; for the temporary files of its children.
        guard: the guard's process.
    """

    mark: str
    temporary: Path
    guard: subprocess.Popen[bytes]


def watch() -> Watch:
    """Start the guard of this process, once, and mark what is started from now on."""
    with _lock:
        if os.getpid() not in _watched:  # by process: a fork starts its own
            mark = uuid.uuid4().hex
            temporary = tempfile.mkdtemp(prefix="edgemill-")
            unmarked = {name: value for name, value in os.environ.items() if name != MARK}
            guard = subprocess.Popen(
                [sys.executable, "-I", __file__, mark, temporary],
                stdin=subprocess.PIPE,  # closes with us
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env=unmarked,
            )
            os.environ[MARK] = mark
            _watched[os.getpid()] = Watch(mark, Path(temporary), guard)
        return _watched[os.getpid()]


def sweep(mark: str) -> int:
    """Kill all processes whose mark starts with this one, and their descendants.

    Returns:
        How many were killed.
    """
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark):
                found |= {process, *process.children(recursive=True)}
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    return len(found)


def _main(mark: str, temporary: str) -> None:
    sys.stdin.buffer.read()
    quiet = 0
    while quiet < _SWEEPS:  # one that was just being started shows its mark a moment later
        quiet = 0 if sweep(mark) else quiet + 1
        time.sleep(_PAUSE_S)
    shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
