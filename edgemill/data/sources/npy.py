"""A folder of .npy files: x.npy, y.npy and, for an own test set, x_test.npy, y_test.npy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.digest import existing_path
from edgemill.data.source import Array, Part, Source, decoding
from edgemill.errors import DataError
from edgemill.recipe import Data

_ACCEPTED = "a .npy file of a plain array, as numpy.save writes it"


def read(data: Data) -> Source:
    """Read the arrays of a folder.

    Raises:
        DataError: x.npy is missing, or a file is damaged or holds objects.
    """
    folder = existing_path(data)
    x = _array(folder / "x.npy")
    if x is None:
        raise DataError("The samples are missing.", where=str(folder), expected="a folder that holds x.npy (and y.npy)")
    parts = {SplitName.TRAIN: Part(x, _array(folder / "y.npy"), str(folder / "x.npy"))}
    test = _array(folder / "x_test.npy")
    if test is not None:
        parts[SplitName.TEST] = Part(test, _array(folder / "y_test.npy"), str(folder / "x_test.npy"))
    return Source(parts)


def _array(path: Path) -> Array | None:
    if not path.is_file():
        return None
    with decoding(path, _ACCEPTED):
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            loaded.close()
            raise DataError(
                "This is an archive of arrays.", where=str(path), expected=_ACCEPTED, remedy="use source: npz"
            )
        return loaded
