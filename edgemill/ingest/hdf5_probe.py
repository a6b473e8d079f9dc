"""Read an HDF5 file once, whole, in a process of its own: `python -m edgemill.ingest.hdf5_probe PATH`.

On a damaged file the HDF5 library may loop for ever or crash inside C, where no exception and no
signal handler reaches it. What this process could read to its end is safe to open afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgemill.artifact import Frozen
from edgemill.errors import CheckpointError

_TIME_LIMIT_S = 20.0
_BYTES_PER_SECOND = 50 << 20


class Hdf5Contents(Frozen):
    """What the root of an HDF5 file holds."""

    attributes: tuple[str, ...]
    groups: tuple[str, ...]
    keras_version: str | None


def probe_hdf5(path: Path) -> Hdf5Contents:
    """Read every attribute and dataset of a file in a child process.

    Raises:
        CheckpointError: the file cannot be read to its end in reasonable time.
    """
    limit = _TIME_LIMIT_S + path.stat().st_size / _BYTES_PER_SECOND
    command = [sys.executable, "-m", "edgemill.ingest.hdf5_probe", str(path)]
    root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=limit, check=False, env=os.environ | {"PYTHONPATH": search}
        )
    except subprocess.TimeoutExpired as error:
        raise _damaged(path, f"not read after {limit:.0f} s") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _damaged(path, last[0] if last else f"the HDF5 library died with status {done.returncode}")
    return Hdf5Contents.model_validate_json(done.stdout)


def _damaged(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "The HDF5 file is damaged.",
        where=str(path),
        expected="an intact Keras .h5 file",
        got=got[:500],
        remedy="save it again",
    )


def _main(path: str) -> None:
    import h5py  # only here: whoever imports this module must not pay for it

    def visit(_: str, item: Any) -> None:
        dict(item.attrs)
        if isinstance(item, h5py.Dataset):
            for chunk in item.iter_chunks() if item.chunks else [...]:
                item[chunk]

    with h5py.File(path, "r") as file:
        attributes = dict(file.attrs)
        file.visititems(visit)
        version = attributes.get("keras_version")
        contents = {
            "attributes": sorted(attributes),
            "groups": sorted(file),
            "keras_version": version.decode("utf-8", "replace") if isinstance(version, bytes) else version,
        }
    sys.stdout.write(json.dumps(contents, default=str))


if __name__ == "__main__":
    _main(sys.argv[1])
