"""What a check asks, and how bounds answer it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgemill.validate.verdict import Bound, Decision, Verdict

NO_TEST = "none"
POINTS = "points"

SEARCH_LIMIT = 10**9
"""Numbers of samples above this are not practical."""


@dataclass(frozen=True)
class Question:
    """A quantity, its margin, and the side on which it must prove to be.

    Attributes:
        gate: name of the check.
        what: the quantity in words, with its article, e.g. `the drop`.
        margin: largest loss, or smallest virtue (see `bound`), that is accepted.
        confidence: one-sided, of each bound.
        bound: BELOW for a loss, ABOVE for a virtue with a floor.
        unit: of the margin for people; `points` for fractions, which are shown times 100.
    """

    gate: str
    what: str
    margin: float
    confidence: float
    bound: Bound = Bound.BELOW
    unit: str = ""

    def decide(self, lower: float, upper: float) -> Decision:
        """PASS where the bound proves the right side, FAIL where it proves the wrong one; NaN proves nothing."""
        good, bad = Decision.PASS, Decision.FAIL
        if self.bound is Bound.ABOVE:
            good, bad = bad, good
        if upper < self.margin:
            return good
        if lower > self.margin:
            return bad
        return Decision.INCONCLUSIVE

    def answer(self, numbers: tuple[float, float, float], n: int, method: str, needed: int | None = None) -> Verdict:
        """Verdict of (estimate, lower bound, upper bound) from n samples.

        Args:
            numbers: finite, or the verdict is INCONCLUSIVE without them.
            n: paired samples.
            method: the statistical method.
            needed: samples that would decide; reported where it is INCONCLUSIVE.
        """
        if not all(map(math.isfinite, numbers)):
            return self.undecided(n, f"{self.what} has no finite bounds with these samples")
        estimate, lower, upper = numbers
        decision = self.decide(lower, upper)
        needed = needed if decision is Decision.INCONCLUSIVE else None
        return self._verdict(decision, n, self._reason(decision, lower, upper, needed)).model_copy(
            update={"estimate": estimate, "lower": lower, "upper": upper, "method": method, "samples_needed": needed}
        )

    def failed(self, n: int, reason: str) -> Verdict:
        """FAIL without a test, for what is broken."""
        return self._verdict(Decision.FAIL, n, reason)

    def undecided(self, n: int, reason: str, needed: int | None = None) -> Verdict:
        """INCONCLUSIVE without a test."""
        return self._verdict(Decision.INCONCLUSIVE, n, reason).model_copy(update={"samples_needed": needed})

    def too_few(self, n: int, needed: int | None) -> Verdict:
        """INCONCLUSIVE without a test, for want of samples."""
        return self.undecided(n, f"{n} samples are too few for a test; at least {needed} are needed", needed)

    def _verdict(self, decision: Decision, n: int, reason: str) -> Verdict:
        return Verdict(
            gate=self.gate,
            verdict=decision,
            margin=self.margin,
            bound=self.bound,
            unit=self.unit,
            confidence=self.confidence,
            n=n,
            method=NO_TEST,
            reason=reason,
        )

    def _reason(self, decision: Decision, lower: float, upper: float, needed: int | None) -> str:
        factor = 100 if self.unit == POINTS else 1
        unit = f" {self.unit}" if self.unit else ""
        low, high, limit = (f"{factor * value:.3g}" for value in (lower, upper, self.margin))
        sure = f"at {100 * self.confidence:.4g} % confidence"
        floor = self.bound is Bound.ABOVE
        if decision is Decision.INCONCLUSIVE:
            remedy = (
                f"about {needed:,} samples would decide" if needed else "no practical number of samples would decide"
            )
            name = "floor" if floor else "margin"
            return f"{self.what} may lie from {low} to {high}{unit}, the {name} is {limit}{unit}; {remedy}"
        below = (decision is Decision.FAIL) == floor
        proven = f"below {high}" if below else f"above {low}"
        if floor:
            relation = "under the floor" if below else "over the floor"
        else:
            relation = "within the margin" if below else "beyond the margin"
        return f"{self.what} is {proven}{unit} {sure}, {relation} of {limit}{unit}"


def needed_from_width(
    numbers: tuple[float, float, float], margin: float, n: int, plain: tuple[float, float] | None = None
) -> int | None:
    """Samples at which the bound towards the margin would reach it, if the estimate stayed.

    The distance of a bound from the estimate shrinks with the square root of the number of samples;
    what pseudo-samples add to it shrinks with the number itself.

    Args:
        numbers: estimate, lower and upper bound.
        margin: where the bound should be.
        n: samples of these bounds.
        plain: lower and upper bound without pseudo-samples, where there are any.

    Returns:
        None where no practical number would do.
    """
    estimate, lower, upper = numbers
    below = estimate < margin
    width = upper - estimate if below else estimate - lower
    own = width if plain is None else max(0.0, plain[1] - estimate if below else estimate - plain[0])
    gap = abs(margin - estimate)
    # Below this share of the width more than SEARCH_LIMIT samples would be needed.
    if not (math.isfinite(width) and gap > 0 and gap > width / math.sqrt(SEARCH_LIMIT)):
        return None
    own, added = min(own, width), max(0.0, width - own)
    # own * shrunk + added * shrunk^2 = gap, without dividing by what may be zero
    root = own + math.sqrt(own * own + 4 * added * gap)
    shrunk = 2 * gap / root if root > 0 else 1.0
    wanted = n / shrunk**2
    return max(n + 1, math.ceil(wanted)) if wanted <= SEARCH_LIMIT else None


def first_size(decided: Callable[[int], bool]) -> int | None:
    """The smallest number of samples that decides, for a rule that stays decided once it is; None beyond 1e9."""
    high = 1
    while not decided(high):
        high *= 2
        if high > SEARCH_LIMIT:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
