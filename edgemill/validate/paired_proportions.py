"""Scores that are 0 or 1: is the variant not worse than the baseline by more than a margin? Paired, one-sided.

Drop = share right in the baseline - share right in the variant, on the same samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from edgemill.errors import InvariantError
from edgemill.recipe import Budget
from edgemill.validate.decide import check_pairs, decide, make_verdict, too_few
from edgemill.validate.verdict import Decision, Verdict

TANGO = "paired proportions, score interval (Tango 1998)"

_SEARCH_LIMIT = 10**9


def tango_upper(lost: float, won: float, n: float, confidence: float) -> float:
    """One-sided upper confidence bound of the drop `(lost - won) / n` of paired proportions.

    The score statistic of Tango (1998), Statistics in Medicine 17:891-908, section 3: for a
    hypothetical drop d,

        z(d) = (lost - won - n d) / sqrt(n (2 q + d (1 - d))),

    where q, the probability of a won sample, is its maximum-likelihood estimate under d:
    q = (sqrt(B^2 - 4 A C) - B) / (2 A), A = 2 n, B = -lost - won + (2 n - lost + won) d,
    C = -won d (1 - d). The bound is the d above the observed one at which z(d) = -z_confidence.
    Without any discordant pair it is z^2 / (n + z^2), not 0.

    Args:
        lost: samples right in the baseline and wrong in the variant (a fraction is accepted).
        won: samples wrong in the baseline and right in the variant.
        n: all samples, > 0.
        confidence: one-sided, 0.5..1.
    """
    if not (n > 0 and lost >= 0 and won >= 0 and lost + won <= n * (1 + 1e-12)):
        raise InvariantError("Counts of a paired comparison are impossible.", got=f"lost {lost}, won {won}, n {n}")
    z = float(stats.norm.ppf(confidence))
    if lost + won == 0:
        return z * z / (n + z * z)
    observed = (lost - won) / n

    def excess(drop: float) -> float:
        return lost - won - n * drop + z * math.sqrt(_score_variance(drop, lost, won, n))

    if excess(1.0) >= 0:
        return 1.0
    return float(optimize.brentq(excess, observed, 1.0, xtol=1e-12))


def _score_variance(drop: float, lost: float, won: float, n: float) -> float:
    a = 2 * n
    b = -lost - won + (2 * n - lost + won) * drop
    c = -won * drop * (1 - drop)
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    return max(0.0, n * (2 * q + drop * (1 - drop)))


def tango_lower(lost: float, won: float, n: float, confidence: float) -> float:
    """One-sided lower confidence bound of the drop; the mirror image of `tango_upper`."""
    return -tango_upper(won, lost, n, confidence)


def compare_binary(baseline: NDArray[np.float64], variant: NDArray[np.float64], budget: Budget) -> Verdict:
    """Test per-sample scores that are 0 or 1.

    Args:
        baseline: (N,), score of every sample.
        variant: (N,), of the same samples in the same order.
        budget: margin and one-sided confidence.
    """
    check_pairs(baseline, variant)
    n, margin, confidence = len(baseline), budget.max_accuracy_drop, budget.confidence
    if n == 0:
        return too_few(budget, 0, samples_needed_binary(0.0, 0.0, margin, confidence))
    lost = int(np.count_nonzero((baseline == 1) & (variant == 0)))
    won = int(np.count_nonzero((baseline == 0) & (variant == 1)))
    lower, upper = tango_lower(lost, won, n, confidence), tango_upper(lost, won, n, confidence)
    needed = None
    if decide(lower, upper, margin) is Decision.INCONCLUSIVE:
        needed = samples_needed_binary(lost / n, won / n, margin, confidence)
    return make_verdict(budget, ((lost - won) / n, lower, upper), n, TANGO, needed, points=True)


def samples_needed_binary(lost_rate: float, won_rate: float, margin: float, confidence: float) -> int | None:
    """Samples at which the bounds decide if lost and won samples keep coming at these rates.

    This is the size at which the expected outcome is decisive, not one with a promised power.
    None where the drop is so near the margin that no practical number would do.
    """
    drop = lost_rate - won_rate

    def decided(n: int) -> bool:
        if drop < margin:
            return tango_upper(n * lost_rate, n * won_rate, n, confidence) < margin
        return tango_lower(n * lost_rate, n * won_rate, n, confidence) > margin

    high = 1
    while not decided(high):
        high *= 2
        if high > _SEARCH_LIMIT:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
