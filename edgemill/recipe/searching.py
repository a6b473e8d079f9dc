"""What a search tries, and how long."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from edgemill.recipe.section import Section


class Preset(StrEnum):
    """How much a search may take."""

    FAST = "fast"
    """One short training and what follows from it: minutes."""
    DEFAULT = "default"
    """Several students and chains: an hour for a small image model on two cores."""
    THOROUGH = "thorough"
    """Longer trainings and a wider space: a night."""


class Goal(StrEnum):
    """What a search makes small."""

    LATENCY = "latency"
    """Median time of one inference against the fp32 checkpoint."""
    COMPRESSED_BYTES = "compressed_bytes"
    """Size of the file after gzip."""
    MACS = "macs"
    """Multiply-accumulates of the model against the checkpoint's: for devices whose times nothing here takes."""
    ENERGY = "energy"
    """Millijoules of one inference, measured or from the target's power envelope."""


class Space(Section):
    """Choices of a search; each left out means the preset's."""

    width: tuple[float, ...] | None = Field(None, description="student width; 1 is the checkpoint itself")
    keep: tuple[float, ...] | None = Field(None, description="share of the cost kept by channel pruning; 1 is none")
    sparsity: tuple[float, ...] | None = Field(None, description="share of zero weights; 0 is none")
    clusters: tuple[int, ...] | None = Field(None, description="shared weights of a layer; 0 is none")

    @model_validator(mode="after")
    def _choices(self) -> Self:
        _check("width", self.width, lambda value: 0 < value <= 1, "above 0, at most 1")
        _check("keep", self.keep, lambda value: 0 < value <= 1, "above 0, at most 1")
        _check("sparsity", self.sparsity, lambda value: 0 <= value < 1, "0 or more, below 1")
        _check("clusters", self.clusters, lambda value: value == 0 or 3 <= value <= 128, "0, or 3 to 128")
        return self


def _check(name: str, choices: tuple[float, ...] | None, fits: Callable[[float], bool], words: str) -> None:
    if choices is None:
        return
    if not choices:
        raise ValueError(f"{name}: at least one choice is needed")
    if len(set(choices)) != len(choices):
        raise ValueError(f"{name}: a choice is listed twice")
    if wrong := [value for value in choices if not fits(value)]:
        raise ValueError(f"{name}: each choice is {words} (found {wrong[0]})")


class Search(Section):
    """Try many chains of stages and keep the Pareto front of those that hold the budget on validation data.

    The recipe's `stages` say how each stage trains; the search says how far each goes.
    """

    preset: Preset = Field(Preset.DEFAULT, description="how much the search may take")
    trials: int | None = Field(None, gt=0, description="most chains that are tried; left out: the preset's")
    time_budget_s: float | None = Field(
        None, gt=0, description="no trial starts after this many seconds; left out: the preset's"
    )
    goals: tuple[Goal, ...] | None = Field(
        None,
        min_length=1,
        description="what is made small, all at once; left out: compressed_bytes, and latency where the times of a "
        "target can be taken here, else macs",
    )
    space: Space = Field(Space(), description="choices; left out: the preset's")

    @model_validator(mode="after")
    def _no_goal_twice(self) -> Self:
        if self.goals is not None and len(set(self.goals)) != len(self.goals):
            raise ValueError("goals: a goal is listed twice")
        return self
