"""IDX files (LeCun, "The MNIST database": the format is given at the end), plain or gzipped."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.digest import existing_path
from edgemill.data.source import Array, Part, Source, decoding
from edgemill.errors import DataError
from edgemill.recipe import Data

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_ACCEPTED = "an IDX file (magic 00 00 TYPE RANK), plain or gzipped"
_IMAGE_RANK = 3
_MAGIC_BYTES = 4
_MAX_BYTES = 1 << 40


def read(data: Data) -> Source:
    """Read the pairs `train-images/labels` and, where present, `t10k-images/labels` of a folder.

    Images (N, H, W) become (N, H, W, 1).

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = existing_path(data)
    if not folder.is_dir():
        raise DataError(
            "Source idx reads a folder.",
            where="data.path",
            got=f"the file {folder}",
            expected="the folder of train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-...",
        )
    parts = {SplitName.TRAIN: _pair(folder, "train")}
    if _find(folder, "t10k", "images") is not None:
        parts[SplitName.TEST] = _pair(folder, "t10k")
    return Source(parts)


def _find(folder: Path, prefix: str, what: str) -> Path | None:
    pattern = re.compile(rf"{prefix}-{what}[-.]idx\d-\w+(\.gz)?")
    return next((path for path in sorted(folder.iterdir()) if pattern.fullmatch(path.name)), None)


def _pair(folder: Path, prefix: str) -> Part:
    images = _find(folder, prefix, "images")
    if images is None:
        raise DataError(
            "An IDX file is missing.",
            where=str(folder),
            expected=f"{prefix}-images-idx3-ubyte or {prefix}-images-idx3-ubyte.gz",
            got=", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "an empty folder",
            remedy="give the folder of the IDX files as data.path",
        )
    labels = _find(folder, prefix, "labels")
    x = read_idx(images)
    return Part(x[..., None] if x.ndim == _IMAGE_RANK else x, None if labels is None else read_idx(labels), str(images))


def read_idx(path: Path) -> Array:
    """The array of one IDX file, in the byte order of this machine.

    Raises:
        DataError: the file is no complete IDX file.
    """
    with decoding(path, _ACCEPTED):
        with path.open("rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            magic = stream.read(4)
            if len(magic) < _MAGIC_BYTES or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or not magic[3]:
                raise DataError(
                    "This is no IDX file.", where=str(path), expected=_ACCEPTED, got=f"starts with {magic!r}"
                )
            shape = struct.unpack(f">{magic[3]}I", stream.read(4 * magic[3]))
            dtype = np.dtype(_DTYPES[magic[2]])
            needed = dtype.itemsize
            for size in shape:
                needed *= size
            body = stream.read(needed + 1) if needed < _MAX_BYTES else b""
        if len(body) != needed:
            raise DataError(
                "The IDX file does not hold what its header says.",
                where=str(path),
                expected=f"{needed} bytes for the shape {shape}",
                got=f"{'more' if len(body) > needed else len(body)} bytes",
                remedy="fetch the file again",
            )
        return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))
