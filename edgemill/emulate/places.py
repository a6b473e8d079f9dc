"""Where sysroots are, and what is in one. Light: nothing is built here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pydantic import Field, ValidationError

from edgemill.artifact import Frozen, canonical_json, digest_text
from edgemill.store import state_folder

SYSROOTS = "EDGEMILL_SYSROOTS"
"""Environment variable: the folder of all sysroots."""
FORMAT = 1
MANIFEST = "sysroot.json"
RUNTIMES = ("onnxruntime", "ai-edge-litert", "numpy")
"""Distributions whose version in the sysroot must be the one that is installed here."""

ARCHITECTURES = {"aarch64": "arm64"}
"""Architectures with a sysroot, and their names in Debian."""


class Manifest(Frozen):
    """What a sysroot was made of."""

    format: int
    arch: str
    release: str = Field(description="of Debian")
    python: str = Field(description="version of the interpreter, e.g. 3.11")
    packages: dict[str, str] = Field(description="SHA-256 of every Debian package by file name")
    wheels: dict[str, str] = Field(description="version of every Python distribution")
    hash_checked: bool = Field(description="whether wheels were held against a lock file's hashes")

    @property
    def digest(self) -> str:
        """Identity of the sysroot."""
        return digest_text(canonical_json(self.model_dump(mode="json")))


@dataclass(frozen=True)
class Sysroot:
    """A sysroot on disk.

    Attributes:
        folder: holds `root/` (the system), `site/` (Python distributions) and the manifest.
        stale: why it cannot be used; empty where it can.
    """

    folder: Path
    manifest: Manifest | None
    stale: str = ""

    @property
    def digest(self) -> str:
        """Identity; empty where the manifest cannot be read."""
        return "" if self.manifest is None else self.manifest.digest


def sysroots_folder() -> Path:
    """Where sysroots are kept: EDGEMILL_SYSROOTS, else `sysroots` in the state folder."""
    chosen = os.environ.get(SYSROOTS)
    return Path(chosen).absolute() if chosen else state_folder() / "sysroots"


def read_sysroot(arch: str, folder: Path | None = None) -> Sysroot | None:
    """The sysroot of an architecture, or None where there is none.

    Args:
        arch: e.g. aarch64.
        folder: of all sysroots; None: `sysroots_folder()`.
    """
    place = (folder or sysroots_folder()) / arch
    try:
        manifest = Manifest.model_validate_json((place / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return Sysroot(place, None, f"the sysroot at {place} cannot be read")
    return Sysroot(place, manifest, _stale(manifest))


def _stale(manifest: Manifest) -> str:
    if manifest.format != FORMAT:
        return f"the sysroot of {manifest.arch} is of another version of Edgemill"
    for name in RUNTIMES:
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if (there := manifest.wheels.get(name)) != here:
            return f"the sysroot of {manifest.arch} has {name} {there}, and {here} is installed here"
    return ""
