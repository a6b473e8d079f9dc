"""Successive halving: whether a student, judged after a short training, is worth the full one.

After Li et al. 2018, "Hyperband" (JMLR 18, section 2), in the asynchronous form of Li et al. 2020, "A System for
Massively Parallel Hyperparameter Tuning" (ASHA, algorithm 2): a trial is promoted when it belongs to the best
1/eta of those judged so far, without waiting for the others. With several goals, "best" is the rank by
non-domination (Schmucker et al. 2021, "Multi-objective Asynchronous Successive Halving", section 3). Latency and
bytes do not depend on how long a model is trained, so both are exact after the short training; only the score is
a proxy. As the score is one more goal, a smaller model is not stopped for scoring less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgemill.search.front import dominates

ETA = 3
"""One of so many is promoted for its rank alone."""

_FULL_RESULTS = 2
"""Fully trained students needed before a loss is called hopeless."""
_MORE_GAIN = 2.0
"""A smaller student may gain this many times more from its full training than any before."""
_STANDARD_ERRORS = 2.0


@dataclass(frozen=True)
class Short:
    """A student after its short training.

    Attributes:
        name: for people.
        values: goals, ratios to the baseline: exact, less is better.
        score: on validation data, higher is better.
        full_score: after the full training, in the same number format; None where it was not done.
    """

    name: str
    values: tuple[float, ...]
    score: float
    full_score: float | None = None


@dataclass(frozen=True)
class Judgement:
    """Whether the full training is worth its time, and why."""

    promoted: bool
    reason: str


def judge(student: Short, earlier: Sequence[Short], *, needed: float, standard_error: float) -> Judgement:
    """Decide about one student from those judged before it.

    It is stopped when it cannot reach the budget even if the full training helps it twice as much as any other
    before; or when another is at least as fast, as small and as accurate, and so many are better that it is
    not among the best third. A student that nobody precedes, or that nobody dominates, goes on.

    Args:
        student: the one in question.
        earlier: all judged before, promoted or not, in any order.
        needed: validation score below which a model is over the budget for certain: the baseline's less the margin.
        standard_error: of one validation score.
    """
    if not math.isfinite(student.score):
        return Judgement(False, f"its score after the short training is {student.score}")
    if (hopeless := _hopeless(student, earlier, needed, standard_error)) is not None:
        return Judgement(False, hopeless)
    better = [other for other in earlier if dominates(_axes(other), _axes(student))]
    if not better:
        return Judgement(True, "none before it is as fast, as small and as accurate" if earlier else "the first")
    rank = sum(1 for other in earlier if _depth(other, earlier) < _depth(student, [*earlier, student]))
    places = math.ceil((len(earlier) + 1) / ETA)
    if rank < places:
        return Judgement(True, f"number {rank + 1} of {len(earlier) + 1} after the short training")
    best = max(better, key=lambda other: (other.score, other.name))
    return Judgement(
        False,
        f"{best.name} is as fast, as small and as accurate after the short training "
        f"({best.score:.4f} against {student.score:.4f})",
    )


def _axes(student: Short) -> tuple[float, ...]:
    return (*student.values, -student.score)


def _depth(student: Short, among: Sequence[Short]) -> int:
    """How many dominate it: 0 on the front."""
    return sum(1 for other in among if dominates(_axes(other), _axes(student)))


def _hopeless(student: Short, earlier: Sequence[Short], needed: float, standard_error: float) -> str | None:
    helped = [other.full_score - other.score for other in earlier if other.full_score is not None]
    if len(helped) < _FULL_RESULTS:
        return None
    best_case = student.score + _MORE_GAIN * max(0.0, *helped) + _STANDARD_ERRORS * standard_error
    if best_case >= needed:
        return None
    return (
        f"scores {student.score:.4f} after the short training; with twice the gain that the full training has "
        f"given others it would reach {best_case:.4f}, and {needed:.4f} is needed"
    )
