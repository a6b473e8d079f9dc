"""Files that survive a kill: locks, and writing so that nothing half-written is ever seen."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def locked(path: Path, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold an advisory lock (flock), which the kernel releases when its holder dies.

    Args:
        path: a folder, or a file that is created if it is not there.
        operation: LOCK_EX or LOCK_SH, LOCK_NB added in order not to wait.

    Raises:
        BlockingIOError: `operation` has LOCK_NB, and another holds it.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.tmp")
    with _opened_alone(temporary) as stream:
        try:
            stream.write(text.encode())
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def _opened_alone(path: Path) -> Iterator[BinaryIO]:
    """Open an empty file that no other process has open; one left by a killed process is used again."""
    while True:
        with path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                still_there = path.stat().st_ino == os.fstat(stream.fileno()).st_ino
            except FileNotFoundError:
                still_there = False  # another writer has renamed it meanwhile
            if still_there:
                stream.truncate(0)
                yield stream
                return


def _files(path: Path) -> Iterator[Path]:
    return (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter((path,))


def sync(path: Path) -> None:
    """Make the content of a file, or of all files of a folder, survive a power cut."""
    for file in _files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make a renaming in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_read_only(path: Path) -> None:
    """Take the right to write from a file, or from all files of a folder."""
    for file in _files(path):
        file.chmod(0o444)


def make_writable(path: Path) -> None:
    """Give the owner the right to write to a file, or to all files of a folder."""
    for file in _files(path):
        file.chmod(0o644)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
