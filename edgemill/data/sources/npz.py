"""Arrays in one .npz file. Pickled content is never loaded."""

from __future__ import annotations

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.digest import existing_path
from edgemill.data.options import NpzOptions, parse_options
from edgemill.data.source import Array, Part, Source, decoding
from edgemill.errors import DataError
from edgemill.recipe import Data

_ACCEPTED = "an .npz file of plain arrays, as numpy.savez writes it"


def read(data: Data) -> Source:
    """Read the arrays that the options name, else x_train/y_train/x_test/y_test, else x/y.

    Raises:
        DataError: the file is damaged, holds objects, or lacks an array.
    """
    path = existing_path(data)
    options: NpzOptions = parse_options(data, NpzOptions)
    with decoding(path, _ACCEPTED), np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError("This is a single array.", where=str(path), expected=_ACCEPTED, remedy="use source: npy")

        def array(named: str | None, *usual: str) -> Array | None:
            if named is not None and named not in archive.files:
                raise DataError(
                    f"The file has no array {named}.", where=str(path), got=", ".join(archive.files) or "no arrays"
                )
            key = named or next((name for name in usual if name in archive.files), None)
            return None if key is None else np.asarray(archive[key])

        x = array(options.x, "x_train", "x")
        if x is None:
            raise DataError(
                "The file has no samples.",
                where=str(path),
                expected="an array x or x_train",
                got=", ".join(archive.files) or "no arrays",
                remedy="name the arrays: data.options: {x: ..., y: ...}",
            )
        parts = {SplitName.TRAIN: Part(x, array(options.y, "y_train", "y"), str(path))}
        test = array(options.x_test, "x_test")
        if test is not None:
            parts[SplitName.TEST] = Part(test, array(options.y_test, "y_test"), f"{path} (test arrays)")
        return Source(parts)
