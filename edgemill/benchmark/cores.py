"""The cores that a measurement runs on, and the time in which something else had them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from edgemill.benchmark.host import usable_cores

_BUSY_S = 0.3
_BUSY_AGAIN_S = 0.1
_FIRST = -20
_AUTOGROUP = Path("/proc/self/autogroup")
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")
_STEAL = 8  # column of /proc/stat after the name, see proc(5)


class Pin:
    """Keeps this thread, and the threads and processes it starts, on the least busy cores, and before others.

    Attributes:
        cores: where it is; None where the system cannot pin or has fewer cores than threads.
        priority: nice value of the measurement: the highest priority where this user may have it.
    """

    def __init__(self, threads: int) -> None:
        """Pin to as many cores as `threads`."""
        self._usable = usable_cores()
        self._threads = threads
        self._before = (os.getpriority(os.PRIO_PROCESS, 0), _session_niceness())
        self.cores: list[int] | None = None
        self.priority = _prefer(_FIRST, _FIRST)
        self.choose()

    def choose(self) -> None:
        """Look which cores are least busy now, and go there."""
        if not hasattr(os, "sched_setaffinity") or self._threads > len(self._usable):
            return
        busy = psutil.cpu_percent(interval=_BUSY_S if self.cores is None else _BUSY_AGAIN_S, percpu=True)

        def load(core: int) -> tuple[float, int]:
            return (busy[core] if core < len(busy) else 0.0, -core)

        self.cores = sorted(sorted(self._usable, key=load)[: self._threads])
        os.sched_setaffinity(0, self.cores)

    def release(self) -> None:
        """Run on all cores again, with the priority of before."""
        if self.cores is not None:
            os.sched_setaffinity(0, self._usable)
        _prefer(*self._before)


def _prefer(niceness: int, session: int | None) -> int:
    """Take a priority if that is allowed; returns the one that this thread has then.

    Where Linux groups processes by session (sched(7), autogroup), niceness only counts within the
    session, so the session takes one too.
    """
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    if session is not None:
        with suppress(OSError):
            _AUTOGROUP.write_text(str(session), encoding="ascii")
    return os.getpriority(os.PRIO_PROCESS, 0)


def _session_niceness() -> int | None:
    try:
        return int(_AUTOGROUP.read_text(encoding="ascii").split()[-1])
    except (OSError, ValueError, IndexError):
        return None


@contextmanager
def pinned(threads: int) -> Iterator[Pin]:
    """Run on as many cores as there are threads, until the end of the block."""
    pin = Pin(threads)
    try:
        yield pin
    finally:
        pin.release()


class Taken(NamedTuple):
    """What others have taken from this process since it started.

    Attributes:
        switches: how often the operating system took a core away (involuntary context switches).
        waited_ns: how long its threads were ready but waited for a core; None where the system does
            not tell (Linux: field 2 of /proc/PID/task/TID/schedstat).
        stolen_ns: time in which the hypervisor ran something else on its cores (Linux, in steps of
            1/100 s); 0 where the system does not tell.
    """

    switches: int
    waited_ns: int | None
    stolen_ns: int

    @classmethod
    def now(cls, cores: list[int] | None) -> Taken:
        """Read the counters.

        Args:
            cores: those it is pinned to; None for all.
        """
        import resource  # not on every system

        return cls(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, _waited_ns(), _stolen_ns(cores))

    def since(self, before: Taken) -> Taken:
        """What was taken between two readings."""
        known = self.waited_ns is not None and before.waited_ns is not None
        waited = max((self.waited_ns or 0) - (before.waited_ns or 0), 0) if known else None
        return Taken(self.switches - before.switches, waited, self.stolen_ns - before.stolen_ns)


def _waited_ns() -> int | None:
    total = None
    try:
        tasks = list(_TASKS.iterdir())
    except OSError:
        return None
    for task in tasks:
        with suppress(OSError, ValueError, IndexError):  # a thread may have ended
            total = (total or 0) + int((task / "schedstat").read_text(encoding="ascii").split()[1])
    return total


def _stolen_ns(cores: list[int] | None) -> int:
    names = {"cpu"} if cores is None else {f"cpu{core}" for core in cores}
    ticks = 0
    try:
        with _STAT.open(encoding="ascii", errors="replace") as stream:
            for line in stream:
                fields = line.split()
                if not fields or not fields[0].startswith("cpu"):
                    break
                if fields[0] in names:
                    ticks += int(fields[_STEAL])
    except (OSError, ValueError, IndexError):
        return 0
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
