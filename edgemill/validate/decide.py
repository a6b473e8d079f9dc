"""From the bounds of a drop to a verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import InvariantError
from edgemill.recipe import Budget
from edgemill.validate.verdict import Decision, Verdict

NO_TEST = "none"
GATE_NAME = "accuracy"


def decide(lower: float, upper: float, margin: float) -> Decision:
    """PASS iff upper < margin, FAIL iff lower > margin, else INCONCLUSIVE; NaN never passes."""
    if upper < margin:
        return Decision.PASS
    if lower > margin:
        return Decision.FAIL
    return Decision.INCONCLUSIVE


def failed(budget: Budget, n: int, reason: str) -> Verdict:
    """FAIL without a test, for a model that is broken."""
    return Verdict(
        gate=GATE_NAME,
        verdict=Decision.FAIL,
        margin=budget.max_accuracy_drop,
        confidence=budget.confidence,
        n=n,
        method=NO_TEST,
        reason=reason,
    )


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


def too_few(budget: Budget, n: int, needed: int | None) -> Verdict:
    """INCONCLUSIVE without a test, for want of samples."""
    return Verdict(
        gate=GATE_NAME,
        verdict=Decision.INCONCLUSIVE,
        margin=budget.max_accuracy_drop,
        confidence=budget.confidence,
        n=n,
        method=NO_TEST,
        samples_needed=needed,
        reason=f"{n} samples are too few for a test; at least {needed} are needed",
    )


def make_verdict(
    budget: Budget, numbers: tuple[float, float, float], n: int, method: str, needed: int | None, *, points: bool
) -> Verdict:
    """Verdict of (estimate, lower bound, upper bound) of a drop; `points` where it is a share."""
    estimate, lower, upper = numbers
    margin, confidence = budget.max_accuracy_drop, budget.confidence
    decision = decide(lower, upper, margin)
    # Proportions in points (hundredths), means in the unit of the score.
    factor, unit = (100, " points") if points else (1, "")
    low, high, limit = (f"{factor * value:.3g}" for value in (lower, upper, margin))
    sure = f"at {100 * confidence:.4g} % confidence"
    if decision is Decision.PASS:
        reason = f"the drop is below {high}{unit} {sure}, within the margin of {limit}{unit}"
    elif decision is Decision.FAIL:
        reason = f"the drop is above {low}{unit} {sure}, beyond the margin of {limit}{unit}"
    else:
        remedy = f"about {needed:,} samples would decide" if needed else "no practical number of samples would decide"
        reason = f"the drop may lie from {low} to {high}{unit}, the margin is {limit}{unit}; {remedy}"
    return Verdict(
        gate=GATE_NAME,
        verdict=decision,
        estimate=estimate,
        lower=lower,
        upper=upper,
        margin=margin,
        confidence=confidence,
        n=n,
        method=method,
        samples_needed=needed,
        reason=reason,
    )
