"""Where toolchains are installed, and whether one is there. Light: nothing is installed here."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from edgemill.artifact import Frozen
from edgemill.store import state_folder
from edgemill.toolchains.spec import Toolchain, load_toolchain

FOLDER = "EDGEMILL_TOOLCHAINS"
"""Environment variable: the folder of all toolchains."""
MANIFEST = "toolchain.json"


class Manifest(Frozen):
    """Written last, so that an environment without it is one that was never finished."""

    name: str
    digest: str = Field(description="of the lock file that was installed")
    python: str = Field(description="version of the interpreter")


@dataclass(frozen=True)
class Installed:
    """A toolchain on this machine.

    Attributes:
        folder: the virtual environment.
        environment_lacks: why the environment cannot be used, with the command that helps; empty where it can.
        system_lacks: the same of programs of the system.
    """

    toolchain: Toolchain
    folder: Path
    environment_lacks: str
    system_lacks: str

    @property
    def lacks(self) -> str:
        """Why the toolchain cannot be used, with the command that helps; empty where it can."""
        return self.environment_lacks or self.system_lacks

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def program(self, name: str) -> Path:
        """A program of the environment."""
        return self.folder / "bin" / name


def toolchains_folder() -> Path:
    """Where toolchains are: EDGEMILL_TOOLCHAINS, else `toolchains` in the state folder."""
    chosen = os.environ.get(FOLDER)
    return Path(chosen).absolute() if chosen else state_folder() / "toolchains"


def installed(name: str) -> Installed:
    """Look for a toolchain.

    Raises:
        RecipeError: no such toolchain.
    """
    toolchain = load_toolchain(name)
    folder = toolchains_folder() / name
    return Installed(toolchain, folder, _environment_lacks(toolchain, folder), _system_lacks(toolchain))


def _environment_lacks(toolchain: Toolchain, folder: Path) -> str:
    command = f"edgemill targets install {toolchain.name}"
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return f"toolchain {toolchain.name} is not installed ({toolchain.size_mb} MB): {command}"
    except (OSError, ValidationError):
        return f"toolchain {toolchain.name} at {folder} cannot be read: {command}"
    if manifest.digest != toolchain.digest:
        return f"toolchain {toolchain.name} is of another version of Edgemill: {command}"
    if manifest.python != platform.python_version() or not (folder / "bin" / "python").exists():
        return f"toolchain {toolchain.name} was made with another Python ({manifest.python}): {command}"
    return ""


def _system_lacks(toolchain: Toolchain) -> str:
    absent = [program for program in toolchain.programs if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install {' '.join(toolchain.packages)}"
    return ""
