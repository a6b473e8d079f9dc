"""The package `edgemill` as an archive that boards get, named by its content."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import edgemill

_SUFFIXES = (".py", ".yaml")


class Package(NamedTuple):
    """The archive.

    Attributes:
        digest: SHA-256 over names and contents.
        content: tar with gzip; its entries begin with `edgemill/`.
    """

    digest: str
    content: bytes


@cache
def package() -> Package:
    """The package that runs here."""
    root = Path(edgemill.__file__).resolve().parent
    digest = hashlib.sha256()
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*")):
            if not path.is_file() or path.suffix not in _SUFFIXES:
                continue
            name, content = f"edgemill/{path.relative_to(root).as_posix()}", path.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return Package(digest.hexdigest(), archive.getvalue())
