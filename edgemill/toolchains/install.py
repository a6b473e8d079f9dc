"""Make a toolchain's environment from its lock file."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from edgemill.errors import ToolchainError
from edgemill.files import locked, remove, write_atomically
from edgemill.toolchains.places import MANIFEST, Installed, Manifest, installed, toolchains_folder
from edgemill.toolchains.spec import Toolchain

_TIME_LIMIT_S = 3600.0


def install(name: str) -> Installed:
    """Install a toolchain, or find it there. Another process that installs the same one is waited for.

    Raises:
        RecipeError: no such toolchain.
        ToolchainError: the environment cannot be made.
    """
    folder = toolchains_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{name}.lock"):
        found = installed(name)
        if found.environment_lack is None:
            return found
        if found.folder.exists():
            remove(found.folder)
        for command in _commands(found):
            _run(command, found.toolchain)
        manifest = Manifest(name=name, digest=found.toolchain.digest, python=platform.python_version())
        write_atomically(found.folder / MANIFEST, manifest.model_dump_json())
    return installed(name)


def _commands(found: Installed) -> list[list[str]]:
    folder, lock = str(found.folder), str(found.toolchain.lock)
    if uv := _uv():
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, folder],
            [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", folder, lock],
        ]
    pip = [str(found.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", folder],
        [*pip, "--require-hashes", "--no-deps", "--requirement", lock],
    ]


def _uv() -> str | None:
    """The installer uv, much faster than pip: of the checkout, or of the system."""
    own = Path(__file__).resolve().parents[2] / ".tools" / "bin" / "uv"
    return str(own) if own.exists() else shutil.which("uv")


def _run(command: list[str], toolchain: Toolchain) -> None:
    environment = dict(os.environ)
    if "PIP_FIND_LINKS" in environment:  # uv has a name of its own for what pip users have set
        environment.setdefault("UV_FIND_LINKS", environment["PIP_FIND_LINKS"])
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIME_LIMIT_S, env=environment)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", "") or str(error)
        raise ToolchainError(
            f"Toolchain {toolchain.name} cannot be installed.",
            where=" ".join(command[:4]),
            got=" | ".join(told.strip().splitlines()[-4:])[:600],
            remedy=toolchain.hint or "look whether the package index can be reached and the disk has room",
        ) from error
