"""The SQLite file of all studies below a folder, safe for several processes at once."""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from sqlalchemy.exc import SQLAlchemyError

from edgemill.errors import StoreError
from edgemill.files import locked

DATABASE = "search.db"
_PATIENCE_S = 60.0


@contextmanager
def storing(folder: Path) -> Iterator[None]:
    """Turn what the database raises into an error of the state folder.

    Raises:
        StoreError: it cannot be read or written, is damaged, or was made by a newer Optuna.
    """
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise StoreError(
            "The file of the search's trials cannot be used.",
            where=str(folder / DATABASE),
            got=f"{type(error).__name__}: {error}".splitlines()[0],
            remedy="free some space or make the folder writable; where the file is damaged, move it away: the search "
            "then starts anew, and what its steps have made is still there",
        ) from error


def open_storage(folder: Path) -> optuna.storages.RDBStorage:
    """Open or create the file; its write-ahead log lets one process read while another writes.

    Raises:
        StoreError: it cannot be written, is damaged, or was made by a newer Optuna.
    """
    path = folder / DATABASE
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            connection = sqlite3.connect(path, timeout=_PATIENCE_S)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()
            options = {"connect_args": {"timeout": _PATIENCE_S}}
            try:
                return optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs=options)
            except RuntimeError as error:  # how Optuna says that the schema is not its own
                raise optuna.exceptions.StorageInternalError(str(error)) from error


class Owner:
    """A process that runs trials; the kernel says whether it still lives.

    It holds a lock on a file of its own, which ends with it however it ends.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "owners"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.name = secrets.token_hex(8)
        self._descriptor = os.open(self._folder / self.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def lives(self, name: str | None) -> bool:
        """Whether another owner, by its name, is still there."""
        if name == self.name:
            return True
        path = self._folder / (name or "")
        if not name or not path.is_file():
            return False
        try:
            with locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB):
                path.unlink(missing_ok=True)
                return False
        except BlockingIOError:
            return True

    def release(self) -> None:
        """Give up; running trials count as interrupted from now on."""
        (self._folder / self.name).unlink(missing_ok=True)
        os.close(self._descriptor)
