"""What a search makes small, and of which targets this machine has a figure for it."""

from __future__ import annotations

import platform
from collections.abc import Sequence

from edgemill.errors import RecipeError
from edgemill.recipe import Goal
from edgemill.targets.provenance import provenance
from edgemill.targets.spec import By, Target

USUAL_GOALS = (Goal.LATENCY, Goal.COMPRESSED_BYTES)
UNTIMED_GOALS = (Goal.MACS, Goal.COMPRESSED_BYTES)
"""Where nothing here takes a target's times."""

_OF_TIME = frozenset({Goal.LATENCY, Goal.ENERGY})


def goals_of(asked: Sequence[Goal] | None, targets: Sequence[Target]) -> tuple[Goal, ...]:
    """The goals of a search.

    Args:
        asked: by the recipe; None: the usual ones, without times where there are none.
        targets: all that are searched for.

    Raises:
        RecipeError: no file of any target answers here, or a goal needs times that no target has here.
    """
    names = ", ".join(target.name for target in targets)
    if not any(answers(target) for target in targets):
        raise RecipeError(
            "Nothing here can run a file of these targets, so no trial could be judged.",
            where="search, targets",
            got=names,
            remedy="search for a target that answers here, and give the stages that it finds to the others",
        )
    if any(tells_time(target) for target in targets):
        return tuple(asked) if asked is not None else USUAL_GOALS
    if asked is not None and _OF_TIME.intersection(asked):
        raise RecipeError(
            "A goal of the search needs times, and nothing here takes those of the targets.",
            where="search.goals",
            expected="a target that runs on this machine or one like it",
            got=names,
            remedy=f"--set 'search.goals=[{', '.join(UNTIMED_GOALS)}]', or leave the goals out",
        )
    return tuple(asked) if asked is not None else UNTIMED_GOALS


def answers(target: Target) -> bool:
    """Whether anything here can run its files."""
    return target.execution.by is not By.NOTHING


def tells_time(target: Target) -> bool:
    """Whether times that are taken on this machine say something of the target."""
    return answers(target) and target.timed and not provenance(target, platform.machine()).startswith("unlike:")
