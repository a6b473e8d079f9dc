"""The machine-wide slot: heavy steps share it, a measurement has it alone (design rule 8).

Two advisory file locks (flock), which the kernel releases when their holder dies. Everybody passes
the gate first and a measurement keeps the gate closed while it waits, so that a steady stream of
heavy steps cannot keep it waiting for ever.

Not reentrant: whoever holds the slot and asks for it again may wait for himself.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemill.errors import StoreError

Report = Callable[[float | None, str], None]

_POLL_S = 0.05
_PATIENCE_S = 0.2  # two steps that pass the gate at the same moment have nothing to tell
_REMIND_S = 10.0


def slot_folder() -> Path:
    """Folder of the lock files: the same for everybody on the machine."""
    return Path(tempfile.gettempdir())


@contextmanager
def shared(report: Report, folder: Path | None = None) -> Iterator[None]:
    """Hold the slot together with other heavy steps; no measurement runs meanwhile.

    Args:
        report: told, with fraction None, what it waits for while it waits.
        folder: where the lock files are; `slot_folder()` unless something must be kept apart.

    Raises:
        StoreError: a lock file cannot be opened.
    """
    gate, slot = _files(folder)
    with _flock(gate, fcntl.LOCK_EX, report):
        descriptor = _acquire(slot, fcntl.LOCK_SH, report)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(report: Report, folder: Path | None = None) -> Iterator[None]:
    """Hold the slot alone: nothing else of Edgemill runs on this machine meanwhile.

    Args and raises: as `shared`.
    """
    gate, slot = _files(folder)
    with _flock(gate, fcntl.LOCK_EX, report), _flock(slot, fcntl.LOCK_EX, report):
        yield


def _files(folder: Path | None) -> tuple[Path, Path]:
    folder = folder or slot_folder()
    return folder / "edgemill-gate.lock", folder / "edgemill-slot.lock"


@contextmanager
def _flock(path: Path, operation: int, report: Report) -> Iterator[None]:
    descriptor = _acquire(path, operation, report)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquire(path: Path, operation: int, report: Report) -> int:
    """Open and lock a file; closing the returned descriptor releases the lock."""
    descriptor = _open(path)
    started = time.monotonic()
    told = _PATIENCE_S
    try:
        while True:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                waited = time.monotonic() - started
                if waited >= told:
                    report(None, _explanation(path, operation, waited))
                    told = waited + _REMIND_S
                time.sleep(_POLL_S)
    except BaseException:
        os.close(descriptor)
        raise


def _explanation(path: Path, operation: int, waited_s: float) -> str:
    if path.name == "edgemill-gate.lock":
        reason = "a measurement of Edgemill runs, or waits to run, on this machine"
    elif operation == fcntl.LOCK_SH:
        reason = "a measurement of Edgemill runs on this machine"
    else:
        reason = "measurements run alone, and other steps of Edgemill still run on this machine"
    return f"waiting ({waited_s:.0f} s): {reason}"


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        # Two calls: in a folder like /tmp the kernel refuses O_CREAT on a file of another user.
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            try:
                descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(descriptor, 0o666)
            except FileExistsError:
                descriptor = os.open(path, flags)
    except OSError as error:
        raise StoreError(
            "The lock file that keeps measurements alone cannot be opened.",
            where=str(path),
            got=error.strerror,
            remedy="remove the file, or set TMPDIR to a folder that can be written",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError("The lock file is not a regular file.", where=str(path), remedy="remove it")
    return descriptor
