"""The main check, of the recipe's budget: from the bounds of a drop to a verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import InvariantError
from edgemill.recipe import Budget
from edgemill.validate.question import NO_TEST, POINTS, Question
from edgemill.validate.verdict import Decision, Verdict

__all__ = ["GATE_NAME", "NO_TEST", "check_pairs", "decide", "failed", "main_question", "make_verdict", "too_few"]

GATE_NAME = "accuracy"


def main_question(budget: Budget, *, points: bool = False) -> Question:
    """Is the drop of the score within the budget? `points` where the score is a share."""
    return Question(GATE_NAME, "the drop", budget.max_accuracy_drop, budget.confidence, unit=POINTS if points else "")


def decide(lower: float, upper: float, margin: float) -> Decision:
    """PASS iff upper < margin, FAIL iff lower > margin, else INCONCLUSIVE; NaN never passes."""
    return Question(GATE_NAME, "the drop", margin, 0.95).decide(lower, upper)


def failed(budget: Budget, n: int, reason: str) -> Verdict:
    """FAIL without a test, for a model that is broken."""
    return main_question(budget).failed(n, reason)


def too_few(budget: Budget, n: int, needed: int | None) -> Verdict:
    """INCONCLUSIVE without a test, for want of samples."""
    return main_question(budget).too_few(n, needed)


def make_verdict(
    budget: Budget, numbers: tuple[float, float, float], n: int, method: str, needed: int | None, *, points: bool
) -> Verdict:
    """Verdict of (estimate, lower bound, upper bound) of a drop; `points` where it is a share."""
    return main_question(budget, points=points).answer(numbers, n, method, needed)


def check_pairs(baseline: NDArray[np.float64], variant: NDArray[np.float64]) -> None:
    """Check that there is one finite score a sample from each side.

    Raises:
        InvariantError: there is not.
    """
    if baseline.shape != variant.shape or baseline.ndim != 1:
        raise InvariantError(
            "A paired test needs one score a sample from each side.",
            expected=str(baseline.shape),
            got=str(variant.shape),
        )
    if not (np.isfinite(baseline).all() and np.isfinite(variant).all()):
        raise InvariantError("A score is not finite.", remedy="find_fault names such predictions beforehand")
