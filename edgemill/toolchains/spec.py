"""What a toolchain is: a YAML file that says what for, and a lock file beside it that says what of."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from pydantic import Field

from edgemill.artifact import Frozen, digest_text
from edgemill.errors import RecipeError


class Toolchain(Frozen):
    """Compilers and runtimes in one environment, because their pins conflict with others or they are large."""

    name: str
    title: str
    size_mb: int = Field(gt=0, description="of the installed environment, in megabytes")
    provides: tuple[str, ...] = Field(min_length=1, description="the distributions that matter")
    programs: tuple[str, ...] = Field((), description="programs that must be on the PATH besides")
    packages: tuple[str, ...] = Field((), description="Debian packages that hold these programs")
    hint: str = Field("", description="what to do where it cannot be installed just so")
    licence: str = Field(description="of what it provides")

    @property
    def lock(self) -> Path:
        """The lock file, with hashes, for every platform."""
        return _folder() / f"{self.name}.lock"

    @property
    def digest(self) -> str:
        """Identity of what is installed: of the lock file."""
        return digest_text(self.lock.read_text(encoding="utf-8"))

    def versions(self, names: tuple[str, ...]) -> dict[str, str]:
        """Locked version of distributions on this machine; those that the lock does not name are left out."""
        found = {}
        for line in self.lock.read_text(encoding="utf-8").splitlines():
            if "==" not in line or line.startswith((" ", "#")):
                continue
            requirement = Requirement(line.removesuffix("\\").strip())
            applies = requirement.marker is None or requirement.marker.evaluate()
            if requirement.name in names and applies:
                found[requirement.name] = next(iter(requirement.specifier)).version
        return found


def _folder() -> Path:
    return Path(str(resources.files("edgemill.toolchains"))) / "locks"


def toolchain_names() -> list[str]:
    """Names of all toolchains, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def load_toolchain(name: str) -> Toolchain:
    """Read one.

    Raises:
        RecipeError: no such toolchain.
    """
    path = _folder() / f"{name}.yaml"
    if name not in toolchain_names():
        near = difflib.get_close_matches(name, toolchain_names(), n=1)
        raise RecipeError(
            "Unknown toolchain.",
            got=name,
            expected=", ".join(toolchain_names()),
            remedy=f"did you mean {near[0]}?" if near else "`edgemill doctor` lists them",
        )
    return Toolchain.model_validate({"name": name} | yaml.safe_load(path.read_text(encoding="utf-8")))
