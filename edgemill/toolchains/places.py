"""Where toolchains are installed, and whether one is there. Light: nothing is installed here."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from edgemill.artifact import Frozen
from edgemill.lack import APT, TOOLCHAINS, Lack
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
        environment_lack: why the environment cannot be used; None where it can.
        system_lack: the same of programs of the system.
    """

    toolchain: Toolchain
    folder: Path
    environment_lack: Lack | None
    system_lack: Lack | None

    @property
    def lacks(self) -> list[Lack]:
        """Why the toolchain cannot be used; empty where it can."""
        return [lack for lack in (self.environment_lack, self.system_lack) if lack is not None]

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
    return Installed(toolchain, folder, _environment_lack(toolchain, folder), _system_lack(toolchain))


def _environment_lack(toolchain: Toolchain, folder: Path) -> Lack | None:
    if not (why := _unusable(toolchain, folder)):
        return None
    return Lack(
        name=f"toolchain {toolchain.name}",
        what=f"toolchain {toolchain.name} {why}",
        getter=TOOLCHAINS,
        arguments=(toolchain.name,),
        size_mb=toolchain.size_mb,
    )


def _unusable(toolchain: Toolchain, folder: Path) -> str:
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return f"is not installed ({toolchain.size_mb} MB)"
    except (OSError, ValidationError):
        return f"at {folder} cannot be read"
    if manifest.digest != toolchain.digest:
        return "is of another version of Edgemill"
    if manifest.python != platform.python_version() or not (folder / "bin" / "python").exists():
        return f"was made with another Python ({manifest.python})"
    return ""


def _system_lack(toolchain: Toolchain) -> Lack | None:
    absent = ", ".join(program for program in toolchain.programs if shutil.which(program) is None)
    if not absent:
        return None
    return Lack(name=absent, what=f"{absent} not found", getter=APT, arguments=toolchain.packages)
