"""Optuna's trials as values of this project."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna

from edgemill.recipe import Goal
from edgemill.search.halving import Short
from edgemill.search.knobs import Knobs, from_record, name_of
from edgemill.search.propose import Tried
from edgemill.search.record import KnobsRecord, TrialRecord, TrialState

KNOBS = "knobs"
ORIGIN = "origin"
OWNER = "owner"
VALUES = "values"
SCORE = "score"
VIOLATION = "violation"
CAUSE = "cause"
AGAIN = "again"
SHORT = "short"
FACTS = "facts"
CONSTRAINT = "gate"
UNMEASURED = "unmeasured"

State = optuna.trial.TrialState
Frozen = optuna.trial.FrozenTrial

_INTERRUPTED = "the run was killed meanwhile"
_LEAST_VIOLATION = 1e-9


def knobs_of(trial: Frozen) -> Knobs:
    """The chain of a trial."""
    return from_record(trial.user_attrs[KNOBS])


def interrupted(trial: Frozen) -> bool:
    """Whether it ended with its process."""
    return trial.state is State.FAIL and CAUSE not in trial.user_attrs


def state_of(trial: Frozen) -> TrialState:
    """What became of a trial."""
    if trial.state is State.COMPLETE:
        return TrialState.COMPLETE if trial.user_attrs[VIOLATION] <= 0 else TrialState.INFEASIBLE
    if trial.user_attrs.get(UNMEASURED) and trial.state is State.PRUNED:
        return TrialState.INFEASIBLE
    known = {State.PRUNED: TrialState.PRUNED, State.FAIL: TrialState.FAILED}
    return known.get(trial.state, TrialState.RUNNING)


def trial_record(trial: Frozen) -> TrialRecord:
    """A trial as the report shows it."""
    attrs: dict[str, Any] = trial.user_attrs
    found = {} if trial.state is State.FAIL else attrs
    knobs = knobs_of(trial)
    took = trial.duration
    return TrialRecord(
        number=trial.number,
        name=name_of(knobs),
        knobs=KnobsRecord.of(knobs),
        origin=attrs[ORIGIN],
        state=state_of(trial),
        values=found.get(VALUES, {}),
        violation=found.get(VIOLATION),
        score=found.get(SCORE),
        cause=_INTERRUPTED if interrupted(trial) else attrs.get(CAUSE),
        seconds=None if took is None else max(0.0, took.total_seconds()),
        facts=found.get(FACTS, {}),
    )


def shorts_of(trials: Sequence[Frozen]) -> tuple[Short, ...]:
    """Every student that was judged after a short training; its full score is the best of its finished chains."""
    shorts = []
    for trial in trials:
        noted = trial.user_attrs.get(SHORT)
        if noted is None or trial.state is State.FAIL:
            continue
        knobs = knobs_of(trial)
        full = [
            other.user_attrs[SCORE]
            for other in trials
            if other.state is State.COMPLETE
            and knobs_of(other).student == knobs.student
            and other.user_attrs.get(SCORE) is not None
        ]
        shorts.append(Short(name_of(knobs), tuple(noted["values"]), noted["score"], max(full, default=None)))
    return tuple(shorts)


def stopped_students(trials: Sequence[Frozen]) -> set[tuple[float, float]]:
    """Students that were stopped after their short training, and of which no chain was finished before."""
    finished = {knobs_of(trial).student for trial in trials if trial.state is State.COMPLETE}
    return {knobs_of(trial).student for trial in trials if state_of(trial) is TrialState.PRUNED} - finished


def tried_of(trial: Frozen, goals: Sequence[Goal]) -> Tried:
    """A trial as the sampler sees it: goals in decades, and what was stopped or not measured as over the budget."""
    attrs = trial.user_attrs
    violation = attrs.get(VIOLATION)
    if trial.state not in (State.COMPLETE, State.PRUNED) or violation is None:
        return Tried(knobs_of(trial), running=trial.state is State.RUNNING)
    if trial.state is State.PRUNED:
        violation = max(violation, _LEAST_VIOLATION)
    values = attrs.get(VALUES, {})
    return Tried(knobs_of(trial), tuple(math.log10(values.get(goal.value, 1.0)) for goal in goals), violation)
