"""What a cause is, and what every rule needs to name one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.benchmark.profile_nodes import NodeTime, Profile

MINOR_SHARE = 0.1
"""A cause whose operators take less of the time than this is not named: curing it would not be noticed."""


class Cause(Frozen):
    """One reason why a model is slower than it could be.

    `us` is the time spent in the operators concerned: what its remedy can save at most, not what it will.
    """

    cause: str = Field(description="short name, e.g. conv_integer")
    title: str
    text: str = Field(description="one or two sentences with numbers")
    operators: tuple[str, ...] = Field(description="operator types concerned, with how many nodes of each")
    share_of_time: float = Field(description="of the time of all operators; of a call for too_small")
    us: float = Field(description="microseconds of one inference in these operators")
    remedy: str


@dataclass(frozen=True)
class Case:
    """What the rules look at.

    Attributes:
        profile: of the variant.
        baseline: of the fp32 model, if there is one.
        slower: the variant takes at least `NOT_FASTER` of the baseline's time; None without one.
        machine: as platform.machine() gives it.
    """

    profile: Profile
    baseline: Profile | None
    slower: bool | None
    machine: str

    @property
    def x86(self) -> bool:
        """Whether this is an x86 CPU."""
        return self.machine.lower() in {"x86_64", "amd64", "i686", "i386"}

    def time(self, nodes: Collection[int]) -> float:
        """Microseconds of the nodes with these indices."""
        return sum(self.profile.nodes[index].us for index in nodes)

    def cause(self, name: str, title: str, text: str, nodes: Collection[int], remedy: str) -> Cause:
        """A cause that concerns the nodes with these indices."""
        us = self.time(nodes)
        return Cause(
            cause=name,
            title=title,
            text=text,
            operators=counted(self.profile.nodes[index].operator for index in nodes),
            share_of_time=self.profile.share(us),
            us=us,
            remedy=remedy,
        )

    def beside(self, wanted: Callable[[NodeTime], bool], what: str) -> str:
        """A sentence with the baseline's time for the same kind of operators; empty without a baseline."""
        if self.baseline is None:
            return ""
        us = sum(node.us for node in self.baseline.nodes if wanted(node))
        return f" The fp32 baseline takes {number(us)} us for its {what}." if us > 0 else ""


def counted(operators: Iterable[str]) -> tuple[str, ...]:
    """`Conv x 7` for each operator type, the most frequent first."""
    return tuple(f"{name} x {count}" for name, count in Counter(operators).most_common())


def number(us: float) -> str:
    """Microseconds with three significant digits."""
    return f"{us:.0f}" if us >= 100 else f"{us:.3g}"


def percent(share: float) -> str:
    """A share as whole percent."""
    return f"{100 * share:.0f} %"


def listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    items = list(parts)
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def plural(count: int, word: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
