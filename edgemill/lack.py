"""What a machine is without: a program, a toolchain, a sysroot; and the commands that get it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field

from edgemill.artifact import Frozen

APT = "apt-get install"
PIP = "pip install"
TOOLCHAINS = "edgemill targets install"
SYSROOT = "edgemill sysroot"


class Lack(Frozen):
    """One thing that is missing, and what gets it."""

    name: str = Field(description="of what is missing, e.g. qemu-aarch64")
    what: str = Field(description="a clause that says so")
    getter: str = Field(description="command that gets it, without its arguments")
    arguments: tuple[str, ...] = Field(description="of that command")
    size_mb: int = Field(0, description="what it takes on disk; 0: not known")
    effect: str = Field("", description="what is less proven without it; empty: nothing can be made without it")

    @property
    def command(self) -> str:
        """What gets this one thing."""
        return " ".join((self.getter, *self.arguments))

    def as_json(self) -> dict[str, Any]:
        """Plain values, the command among them."""
        return self.model_dump(mode="json") | {"command": self.command}

    def __str__(self) -> str:
        clauses = (self.effect, self.what, self.command)
        return ": ".join(clause for clause in clauses if clause)


def state(lacks: Sequence[Lack]) -> str:
    """What they mean for what they belong to, in a few words: ready, or what it needs."""
    needed = [lack.name for lack in lacks if not lack.effect]
    if needed:
        return f"needs {', '.join(needed)}"
    more = ", ".join(lack.name for lack in lacks)
    return f"ready; more is proven with {more}" if more else "ready"


def told(lacks: Iterable[Lack]) -> str:
    """All of them in one sentence."""
    return "; ".join(dict.fromkeys(map(str, lacks)))


def total_mb(lacks: Iterable[Lack]) -> int:
    """What everything takes on disk, as far as that is known."""
    return sum({lack.name: lack.size_mb for lack in lacks}.values())


def commands(lacks: Iterable[Lack]) -> list[str]:
    """The fewest commands that get everything, in the order in which they work: packages of the system first."""
    wanted: dict[str, dict[str, None]] = {APT: {}, PIP: {}, TOOLCHAINS: {}, SYSROOT: {}}
    for lack in lacks:
        wanted.setdefault(lack.getter, {}).update(dict.fromkeys(lack.arguments))
    return [f"{getter} {' '.join(arguments)}" for getter, arguments in wanted.items() if arguments]
