"""The lease of a board: who may work on it, and until when. It ends by itself.

It is a file in the board's folder that all who come to the board look at under a lock. Its times are those of
CLOCK_BOOTTIME, because a board without a battery for its clock jumps by years when it meets a time server; a
lease of before the last boot is over.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from edgemill.artifact import Frozen
from edgemill.errors import ToolchainError
from edgemill.files import locked, write_atomically

_FILE, _LOCK = "lease.json", "lease.lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STARTED = 19  # of the fields after the command in /proc/PID/stat, see proc(5)


class Work(Frozen):
    """The group of processes that works under a lease."""

    group: int = Field(gt=1, description="its number, which is that of its first process")
    started: int | None = Field(description="when the first process started, in ticks since the boot")


class Lease(Frozen):
    """Who works on a board."""

    id: str
    owner: str = Field(description="user, machine and process, for people")
    boot: str = Field(description="identity of the boot in which the times count")
    expires_s: float = Field(description="CLOCK_BOOTTIME")
    expires_at: str = Field(description="UTC, as far as the board knows the time; for people")
    work: Work | None = None

    @property
    def valid(self) -> bool:
        """Whether it still counts."""
        return self.boot == boot_id() and now() < self.expires_s

    @property
    def words(self) -> str:
        """Holder and end, for people."""
        left = max(self.expires_s - now(), 0.0)
        return f"{self.owner}, until {self.expires_at} (in {left:.0f} s) unless it goes on"


class HeldError(Exception):
    """Another has the lease."""

    def __init__(self, lease: Lease | None) -> None:
        self.lease = lease
        super().__init__("somebody who is just taking it" if lease is None else lease.words)


def now() -> float:
    """Seconds since the boot, also of those asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def boot_id() -> str:
    """Identity of this boot; empty where the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def work_of(process: int) -> Work:
    """The group that a process leads."""
    return Work(group=process, started=_started(process))


def read(folder: Path) -> Lease | None:
    """The lease as it stands; None where there is none."""
    try:
        return Lease.model_validate_json((folder / _FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def take(folder: Path, owner: str, duration_s: float) -> Lease:
    """Take the lease. What is left of the work of one that ran out is ended first.

    Raises:
        HeldError: another has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB):
            there = read(folder)
            if there is not None and there.valid:
                raise HeldError(there)
            if there is not None:
                end_work(there)
            lease = Lease(id=uuid.uuid4().hex, owner=owner, boot=boot_id(), **_until(now() + duration_s))
            _write(folder, lease)
            return lease
    except BlockingIOError:
        raise HeldError(None) from None


def prolong(folder: Path, lease: Lease, until_s: float, work: Work | None = None) -> Lease:
    """The lease with a later end, and the work if it is given.

    Raises:
        ToolchainError: it ran out before, and another may have it.
    """
    with locked(folder / _LOCK):
        there = read(folder)
        if there is None or there.id != lease.id or not there.valid:
            raise ToolchainError(
                "The lease of the board ran out before the work was done.",
                got="nobody has it now" if there is None or not there.valid else f"held by {there.words}",
                remedy="run again; if the work is never heard of for so long, set a longer lease_s in the inventory",
            )
        longer = there.model_copy(update=_until(until_s) | ({} if work is None else {"work": work}))
        _write(folder, longer)
        return longer


def release(folder: Path, lease_id: str) -> None:
    """Give the lease back; does nothing where another has it."""
    with locked(folder / _LOCK):
        there = read(folder)
        if there is not None and there.id == lease_id:
            (folder / _FILE).unlink(missing_ok=True)


def end_work(lease: Lease) -> None:
    """Kill the processes that work under a lease, also stopped ones."""
    if lease.work is None or lease.boot != boot_id():
        return
    if _started(lease.work.group) in (lease.work.started, None):  # else the number was given to another process
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(lease.work.group, signal.SIGKILL)


def _until(boot_time: float) -> dict[str, object]:
    at = datetime.now(UTC) + timedelta(seconds=boot_time - now())
    return {"expires_s": boot_time, "expires_at": at.isoformat(timespec="seconds")}


def _write(folder: Path, lease: Lease) -> None:
    write_atomically(folder / _FILE, lease.model_dump_json())


def _started(process: int) -> int | None:
    """When a process started; None where there is none of this number, or the system does not tell."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[_STARTED])
