"""The embedded MLflow database: created whole or not at all, by one process at a time.

MLflow creates its tables in many steps without a transaction around them, and without a lock
between processes. A kill in the middle, or two runs that start at the very first moment, would
leave a database that no later run can open.
"""

from __future__ import annotations

import re
from pathlib import Path

from mlflow import MlflowClient

from edgemill.files import locked, remove, sync_folder

_FILE = re.compile(r"sqlite:///([^?]+)$")


def ensure_database(address: str) -> None:
    """Create the file of a tracking database beside its final name, and rename it when it is whole.

    Args:
        address: of the tracking store; anything but a database file has its own order and is left alone.

    Raises:
        MlflowException: MLflow cannot create it.
        OSError: the folder cannot be written.
    """
    found = _FILE.match(address)
    if found is None or found[1] == ":memory:" or (path := Path(found[1])).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        fresh = path.with_name(f".new-{path.name}")
        for leftover in path.parent.glob(f"{fresh.name}*"):
            remove(leftover)
        MlflowClient(f"sqlite:///{fresh}").search_experiments(max_results=1)
        for end in ("-journal", "-wal"):
            if fresh.with_name(fresh.name + end).exists():
                raise OSError(f"{fresh}{end}: the new database is still written to")
        fresh.replace(path)
        sync_folder(path.parent)
