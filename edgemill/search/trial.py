"""What goes into a study and comes out of it: its subject, a trial, and what the trial has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgemill.recipe import Goal
from edgemill.search.knobs import Knobs, name_of


@dataclass(frozen=True)
class Subject:
    """What a study is about: equal subjects, plans and seeds continue one study.

    Attributes:
        checkpoint: digest of the ingested checkpoint, which earlier studies are recognized by.
        identities: whatever else decides a result: digests of data and targets, the budget, versions of tools.
    """

    checkpoint: str
    identities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """A chain to try.

    Attributes:
        origin: why it: `warm start`, `start list`, `interrupted`, `again`, or the sampler's name.
    """

    number: int
    knobs: Knobs
    origin: str

    @property
    def name(self) -> str:
        """Of the chain."""
        return name_of(self.knobs)


@dataclass(frozen=True)
class Outcome:
    """What a trial has found, on validation data and by measurement.

    Attributes:
        values: every goal as a ratio to the fp32 baseline, above 0; less is better.
        violation: upper bound of the drop less the margin; above 0 is over the budget.
        score: on validation data.
        facts: JSON values for the record.
        cause: why it is over the budget, where the accuracy is not why.
    """

    values: Mapping[Goal, float]
    violation: float
    score: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    cause: str | None = None
