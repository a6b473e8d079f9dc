"""The state of a training run after an epoch, in one file that is whole or not there."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import canonical_json, digest_text

_FILE = "training.npz"


@dataclass(frozen=True)
class Snapshot:
    """What is needed to go on.

    Attributes:
        state: values of all variables (model, regressors, optimizer) after the last finished epoch.
        best: the model's variables after the best epoch; empty before there is one.
        epochs: one record an epoch.
        best_epoch: index of the best epoch, -1 before there is one.
    """

    state: tuple[NDArray[Any], ...]
    best: tuple[NDArray[Any], ...]
    epochs: tuple[dict[str, float], ...]
    best_epoch: int


def identity(settings: Any, variables: Sequence[Any]) -> str:
    """Digest of what must be equal for a snapshot to be usable: settings, and shapes of all variables."""
    shapes = [[list(v.shape), v.dtype.name if hasattr(v.dtype, "name") else str(v.dtype)] for v in variables]
    return digest_text(canonical_json([settings, shapes]))


def save(folder: Path, run: str, snapshot: Snapshot) -> None:
    """Write a snapshot: to a temporary file first, synced, then renamed over the old one."""
    arrays: dict[str, Any] = {f"state_{i}": value for i, value in enumerate(snapshot.state)}
    arrays |= {f"best_{i}": value for i, value in enumerate(snapshot.best)}
    head = {
        "run": run,
        "state": len(snapshot.state),
        "best": len(snapshot.best),
        "epochs": list(snapshot.epochs),
        "best_epoch": snapshot.best_epoch,
    }
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_FILE}.tmp"
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / _FILE)


def load(folder: Path, run: str) -> Snapshot | None:
    """The snapshot of this very run, None if there is none or it belongs to another run."""
    try:
        with np.load(folder / _FILE, allow_pickle=False) as arrays:
            head = json.loads(bytes(arrays["head"]))
            if head["run"] != run:
                return None
            return Snapshot(
                tuple(arrays[f"state_{i}"] for i in range(head["state"])),
                tuple(arrays[f"best_{i}"] for i in range(head["best"])),
                tuple(head["epochs"]),
                head["best_epoch"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
