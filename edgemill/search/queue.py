"""What comes next in a study, from its trials alone: whether it is over, what is repeated, and which chain is tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemill.artifact import digest_text
from edgemill.search.frozen import AGAIN, CAUSE, OWNER, Frozen, State, interrupted, knobs_of, stopped_students, tried_of
from edgemill.search.knobs import Knobs
from edgemill.search.plan import Plan
from edgemill.search.propose import Sampler, propose

REPEATED = "interrupted"
WARM_START = "warm start"
START_LIST = "start list"

_MOST_INTERRUPTIONS = 3


@dataclass(frozen=True)
class Queue:
    """The state of a study between two trials.

    Attributes:
        settled: trials whose chains are not tried again.
        repeated: chains that a killed run, or one with trouble of its own, left unfinished.
        untried: chains that may be proposed.
        stopped: whether chains were left out because their student was stopped.
    """

    plan: Plan
    settled: tuple[Frozen, ...]
    repeated: tuple[Knobs, ...]
    untried: tuple[Knobs, ...]
    stopped: bool

    def over(self, seconds: float) -> str:
        """Why there is no next trial; empty if there is one.

        Args:
            seconds: spent on the study.
        """
        plan = self.plan
        if len(self.settled) >= plan.trials:
            return f"all {plan.trials} trials of the plan are done"
        if not self.untried:
            return "every valid chain was tried" + (", or has a student that was stopped" if self.stopped else "")
        if seconds >= plan.time_budget_s:
            return f"the time budget of {plan.time_budget_s:.0f} s is spent"
        return ""

    def next(self, warm: Sequence[Knobs], sampler: Sampler, seed: int) -> tuple[Knobs, str]:
        """The next chain and where it comes from: what was unfinished, then the lists, then the sampler."""
        left = set(self.untried)
        for origin, chains in ((REPEATED, self.repeated), (WARM_START, warm), (START_LIST, self.plan.start)):
            for knobs in chains:
                if knobs in left:
                    return knobs, origin
        goals = self.plan.goals
        own_seed = int(digest_text(f"{seed} {len(self.settled)}")[:8], 16)
        tried = [tried_of(trial, goals) for trial in self.settled]
        return propose(self.plan.choices, self.untried, tried, len(goals), sampler, own_seed), sampler.value


def queue_of(plan: Plan, trials: Sequence[Frozen], owner: str) -> Queue:
    """Sort the trials of a study.

    Args:
        owner: who asks; what another run has marked to be tried again is tried again.
    """
    again = [trial for trial in trials if _to_be_repeated(trial, trials, owner)]
    numbers = {trial.number for trial in again}
    settled = tuple(trial for trial in trials if trial.number not in numbers)
    tried = {knobs_of(trial) for trial in settled}
    stopped = stopped_students(settled)
    return Queue(
        plan=plan,
        settled=settled,
        repeated=tuple(knobs_of(trial) for trial in again),
        untried=tuple(knobs for knobs in plan.candidates if knobs not in tried and knobs.student not in stopped),
        stopped=bool(stopped),
    )


def _to_be_repeated(trial: Frozen, trials: Sequence[Frozen], owner: str) -> bool:
    if trial.state is not State.FAIL:
        return False
    if CAUSE in trial.user_attrs:
        return bool(trial.user_attrs.get(AGAIN)) and trial.user_attrs.get(OWNER) != owner
    times = sum(interrupted(other) and knobs_of(other) == knobs_of(trial) for other in trials)
    return times < _MOST_INTERRUPTIONS
