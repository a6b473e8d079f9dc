"""A study: what was tried, kept in an SQLite file by Optuna, and asked for what to try next.

Every trial is written when it begins and when it ends, so a kill loses at most the running ones; the next run
closes those as failed and tries them first. What Optuna holds are plain ratios and constraints, readable with its
own tools; proposals are made by `edgemill.search.propose` on a copy in memory.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna

from edgemill.artifact import canonical_json, digest_text
from edgemill.errors import InvariantError
from edgemill.files import locked
from edgemill.search.front import history
from edgemill.search.frozen import (
    AGAIN,
    CAUSE,
    CONSTRAINT,
    FACTS,
    KNOBS,
    ORIGIN,
    OWNER,
    SCORE,
    SHORT,
    UNMEASURED,
    VALUES,
    VIOLATION,
    Frozen,
    State,
    knobs_of,
    shorts_of,
    trial_record,
)
from edgemill.search.halving import Short
from edgemill.search.importance import importances
from edgemill.search.knobs import Knobs, from_record, name_of, shown
from edgemill.search.plan import Plan
from edgemill.search.propose import Sampler
from edgemill.search.queue import queue_of
from edgemill.search.record import SearchRecord, TrialRecord, TrialState, best_of, point_of
from edgemill.search.storage import Owner, open_storage, storing
from edgemill.search.trial import Outcome, Subject, Trial
from edgemill.search.warm import CHECKPOINT, WARM_STARTED, earlier_best

__all__ = ["Outcome", "SearchStudy", "Subject", "Trial"]

_SPENT = "spent:"
_STOPPED = "stopped_because"


class SearchStudy:
    """One study, asked and told by one process or several.

    Args:
        folder: with the SQLite file of all studies.
        plan: what may be tried.
        subject: what it is about.
        seed: of the sampler.
        sampler: how chains are proposed after the start list.
    """

    def __init__(
        self, folder: Path, plan: Plan, subject: Subject, seed: int = 0, sampler: Sampler = Sampler.MODEL
    ) -> None:
        self.plan = plan
        self._folder, self._seed, self._sampler = folder, seed, sampler
        identity = {"checkpoint": subject.checkpoint, **subject.identities, "plan": plan.record(), "seed": seed}
        self.name = f"{subject.checkpoint[:12]}-{digest_text(canonical_json(identity))[:16]}"
        self._storage = open_storage(folder)
        self._owner = Owner(folder)
        self._thread = threading.Lock()
        self._asked: dict[int, optuna.Trial] = {}
        self._opened = time.monotonic()
        with storing(folder), locked(folder):
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                directions=["minimize"] * len(plan.goals),
                load_if_exists=True,
            )
            self.resumed = bool(self._study.get_trials(deepcopy=False))
            if CHECKPOINT not in self._study.user_attrs:
                warm = earlier_best(self._storage, subject.checkpoint, self.name, plan)
                self._study.set_user_attr(WARM_STARTED, [knobs.record() for knobs in warm])
                self._study.set_user_attr("goals", [goal.value for goal in plan.goals])
                self._study.set_user_attr(CHECKPOINT, subject.checkpoint)
            self._close_dead()

    def ask(self) -> Trial | None:
        """The next chain, never one that was tried; None when the search is over (see `stopped_because`)."""
        with self._thread, storing(self._folder), locked(self._folder):
            self._close_dead()
            queue = queue_of(self.plan, self._trials(), self._owner.name)
            reason = queue.over(self.seconds)
            self._study.set_user_attr(_STOPPED, reason)
            return None if reason else self._begin(*queue.next(self._warm(), self._sampler, self._seed))

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Record what a trial has found. Figures that are not finite make it a failed one.

        A chain that is over the budget need not have been measured: its outcome may lack goals.
        """
        unmeasured = any(goal not in outcome.values for goal in self.plan.goals)
        if unmeasured and math.isfinite(outcome.violation) and outcome.violation > 0:
            with self._thread, storing(self._folder):
                running = self._running(trial)
                self._note(running, replace(outcome, values={}))
                running.set_user_attr(UNMEASURED, True)
                self._study.tell(running, state=State.PRUNED)
                self._end(trial)
            return
        figures = {**{goal.value: outcome.values.get(goal) for goal in self.plan.goals}, VIOLATION: outcome.violation}
        broken = {name: value for name, value in figures.items() if value is None or not math.isfinite(value)}
        broken |= {goal.value: value for goal, value in outcome.values.items() if value <= 0}
        if broken:
            self.fail(trial, "; ".join(f"{name} is {value}" for name, value in broken.items()))
            return
        with self._thread, storing(self._folder):
            running = self._running(trial)
            self._note(running, outcome)
            running.set_constraint(CONSTRAINT, outcome.violation)
            self._study.tell(running, [outcome.values[goal] for goal in self.plan.goals])
            self._end(trial)

    def stop(self, trial: Trial, reason: str, outcome: Outcome | None = None) -> None:
        """End a trial after its short training: no chain with the same student is proposed again.

        Args:
            outcome: what is known of it.
        """
        with self._thread, storing(self._folder):
            running = self._running(trial)
            if outcome is not None:
                self._note(running, outcome)
            running.set_user_attr(CAUSE, reason)
            self._study.tell(running, state=State.PRUNED)
            self._end(trial)

    def fail(self, trial: Trial, cause: str, *, again: bool = False) -> None:
        """Record that a step of a trial failed; the study goes on.

        Args:
            again: nothing was wrong with the chain itself (a full disk, say): the next run tries it again.
        """
        with self._thread, storing(self._folder):
            running = self._running(trial)
            running.set_user_attr(CAUSE, cause)
            running.set_user_attr(AGAIN, again)
            self._study.tell(running, state=State.FAIL)
            self._end(trial)

    def unjudged(self, trial: Trial) -> bool:
        """Whether the student of a trial has to prove itself in a short training first."""
        if self.plan.short is None or trial.knobs.student == Knobs(trial.knobs.scheme).student:
            return False
        return not any(
            knobs_of(other).student == trial.knobs.student
            and ((SHORT in other.user_attrs and other.state is not State.FAIL) or other.state is State.COMPLETE)
            for other in self._trials()
        )

    def note_short(self, trial: Trial, values: Sequence[float], score: float) -> None:
        """Record what the short training of a trial's student has found.

        Args:
            values: of the plan's goals, ratios to the baseline.
            score: on validation data.
        """
        with self._thread, storing(self._folder):
            self._running(trial).set_user_attr(SHORT, {"values": list(values), "score": score})

    def shorts(self) -> tuple[Short, ...]:
        """Every student that was judged so far, for `edgemill.search.halving.judge`."""
        return shorts_of(self._trials())

    @property
    def history(self) -> tuple[TrialRecord, ...]:
        """Every trial, by number."""
        return tuple(trial_record(trial) for trial in self._trials())

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials within the budget that no other beats, by their first goal."""
        return tuple(best_of(self.history, self.plan.goals))

    @property
    def stopped_because(self) -> str:
        """Why `ask` gave none, or that it did not yet."""
        return self._study.user_attrs.get(_STOPPED) or "it was not asked to its end"

    @property
    def seconds(self) -> float:
        """Time spent on this study, over all runs."""
        others = {key: value for key, value in self._study.user_attrs.items() if key.startswith(_SPENT)}
        others.pop(_SPENT + self._owner.name, None)
        return float(sum(others.values())) + time.monotonic() - self._opened

    def record(self) -> SearchRecord:
        """The study as the report shows it, at any moment."""
        trials = self.history
        goals = self.plan.goals
        ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
        points = [point_of(trial, goals) if trial.state is TrialState.COMPLETE else None for trial in ended]
        return SearchRecord(
            preset=self.plan.preset,
            goals=goals,
            study=self.name,
            planned=self.plan.trials,
            candidates=len(self.plan.candidates),
            trials=trials,
            front=tuple(trial.name for trial in best_of(trials, goals)),
            hypervolume=history(points),
            importance=importances(self.plan, trials),
            resumed=self.resumed,
            warm_started=tuple(name_of(knobs) for knobs in self._warm()),
            seconds=self.seconds,
            stopped_because=self.stopped_because,
        )

    def close(self) -> None:
        """Let go of the file; what is still running counts as interrupted."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._owner.release()

    # -- Optuna's trials ---------------------------------------------------------------------

    def _begin(self, knobs: Knobs, origin: str) -> Trial:
        distributions: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.CategoricalDistribution(
                [shown(name, value) for value in getattr(self.plan.choices, name)]
            )
            for name in self.plan.choices.open
        }
        if not self._study.get_trials(deepcopy=False, states=(State.WAITING,)):
            self._study.enqueue_trial(
                {name: shown(name, getattr(knobs, name)) for name in distributions},
                user_attrs={KNOBS: knobs.record(), ORIGIN: origin},
            )
        running = self._study.ask(distributions)
        running.set_user_attr(OWNER, self._owner.name)
        self._asked[running.number] = running
        attrs = running.user_attrs
        return Trial(running.number, from_record(attrs[KNOBS]), attrs[ORIGIN])

    def _warm(self) -> list[Knobs]:
        return [from_record(record) for record in self._study.user_attrs.get(WARM_STARTED, [])]

    def _trials(self) -> list[Frozen]:
        return [trial for trial in self._study.get_trials(deepcopy=False) if trial.state is not State.WAITING]

    def _close_dead(self) -> None:
        """Fail what a killed process was running; it leaves no cause, which is how it is known."""
        for trial in self._trials():
            if trial.state is State.RUNNING and not self._owner.lives(trial.user_attrs.get(OWNER)):
                self._study.tell(trial.number, state=State.FAIL)

    def _running(self, trial: Trial) -> optuna.Trial:
        try:
            return self._asked[trial.number]
        except KeyError:
            raise InvariantError("This trial is not running here.", where=f"trial {trial.number}") from None

    def _note(self, running: optuna.Trial, outcome: Outcome) -> None:
        running.set_user_attr(VALUES, {goal.value: value for goal, value in outcome.values.items()})
        running.set_user_attr(VIOLATION, outcome.violation)
        running.set_user_attr(SCORE, outcome.score)
        running.set_user_attr(FACTS, dict(outcome.facts))
        if outcome.cause is not None:
            running.set_user_attr(CAUSE, outcome.cause)

    def _end(self, trial: Trial) -> None:
        del self._asked[trial.number]
        self._study.set_user_attr(_SPENT + self._owner.name, time.monotonic() - self._opened)
