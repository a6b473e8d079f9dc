"""Size of a model file, as it lies on a device and as it travels there."""

from __future__ import annotations

import gzip
from pathlib import Path

import zstandard

COMPRESSION = "gzip -9"
TRANSFER_COMPRESSION = "zstd -19"

_ZSTD_LEVEL = 19


def sizes(path: Path) -> dict[str, int]:
    """Bytes of a file, or of all files of a folder one after another.

    Returns:
        `size_bytes`, `compressed_bytes` (gzip, level 9) and `transfer_bytes` (zstd, level 19, one
        frame without a dictionary).
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    content = b"".join(file.read_bytes() for file in files)
    return {
        "size_bytes": len(content),
        "compressed_bytes": len(gzip.compress(content, compresslevel=9, mtime=0)),
        "transfer_bytes": len(zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)),
    }
