"""What a search did, as one value: summary.json, the report and MLflow read it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field, FiniteFloat, NonNegativeFloat, NonNegativeInt

from edgemill.artifact import Frozen
from edgemill.recipe import Goal, Preset, Scheme, Wider
from edgemill.search.front import pareto
from edgemill.search.knobs import Knobs


class TrialState(StrEnum):
    """What became of a trial."""

    COMPLETE = "complete"
    """Within the budget on validation data."""
    INFEASIBLE = "infeasible"
    """Complete, and over the budget on validation data."""
    PRUNED = "pruned"
    """Stopped after its short training."""
    FAILED = "failed"
    """A step failed, or the run was killed meanwhile."""
    RUNNING = "running"


class KnobsRecord(Frozen):
    """How far each stage of a chain goes, see `edgemill.search.knobs.Knobs`."""

    width: FiniteFloat
    keep: FiniteFloat
    sparsity: FiniteFloat
    clusters: NonNegativeInt
    scheme: Scheme
    fallback: tuple[Wider, ...] = ()

    @classmethod
    def of(cls, knobs: Knobs) -> KnobsRecord:
        """The record of a chain."""
        return cls.model_validate(knobs.record())

    @property
    def knobs(self) -> Knobs:
        """The chain."""
        return Knobs(self.scheme, self.width, self.keep, self.sparsity, self.clusters, self.fallback)


class TrialRecord(Frozen):
    """One chain that was tried."""

    number: NonNegativeInt
    name: str = Field(description="of the chain, e.g. w0.333-s0.5-c16-int8_static")
    knobs: KnobsRecord
    origin: str = Field(description="why it was proposed: warm start, start list, interrupted, or the sampler's name")
    state: TrialState
    values: dict[Goal, FiniteFloat] = Field(default={}, description="ratios to the fp32 baseline; less is better")
    violation: FiniteFloat | None = Field(
        default=None, description="upper bound of the drop on validation data less the margin; above 0 is infeasible"
    )
    score: FiniteFloat | None = Field(default=None, description="on validation data")
    cause: str | None = Field(default=None, description="why it failed or was stopped")
    seconds: NonNegativeFloat | None = Field(default=None, description="from the proposal to the result")
    facts: dict[str, Any] = Field(default={}, description="whatever else the caller noted")


class Importance(Frozen):
    """How much each knob matters for one quantity."""

    of: str = Field(description="a goal, or accuracy_drop")
    shares: dict[str, FiniteFloat] = Field(
        default={}, description="share of the variance by knob, largest first; they sum to 1"
    )
    trials: NonNegativeInt = Field(description="trials it was computed from")
    method: str = ""
    reason: str | None = Field(default=None, description="why there are no shares")


class SearchRecord(Frozen):
    """A search as the report shows it."""

    preset: Preset
    goals: tuple[Goal, ...]
    study: str = Field(description="name of the study in its SQLite file")
    planned: NonNegativeInt = Field(description="most trials")
    candidates: NonNegativeInt = Field(description="valid chains of the space")
    trials: tuple[TrialRecord, ...]
    front: tuple[str, ...] = Field(description="names of the chains that no other beats, within the budget")
    hypervolume: tuple[NonNegativeFloat, ...] = Field(
        description="after each finished trial, in decades below the baseline to the number of goals"
    )
    importance: tuple[Importance, ...]
    resumed: bool = Field(description="continues a study that an earlier run began")
    warm_started: tuple[str, ...] = Field(description="chains taken over from earlier studies of the same checkpoint")
    seconds: NonNegativeFloat = Field(description="over all runs of this study")
    stopped_because: str


def point_of(trial: TrialRecord, goals: Sequence[Goal]) -> tuple[float, ...]:
    """Its goals, ratios to the baseline, in the given order."""
    return tuple(trial.values[goal] for goal in goals)


def best_of(trials: Sequence[TrialRecord], goals: Sequence[Goal]) -> list[TrialRecord]:
    """The trials within the budget that no other beats, by their first goal."""
    within = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    best = [within[index] for index in pareto([point_of(trial, goals) for trial in within])]
    return sorted(best, key=lambda trial: (point_of(trial, goals), trial.name))
