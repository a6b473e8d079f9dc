"""Scores that are 0 or 1: is the variant not worse than the baseline by more than a margin? Paired, one-sided.

Drop = share right in the baseline - share right in the variant, on the same samples.

The bounds are exact for every n (`edgemill.validate.exact_paired`). The asymptotic score interval alone
would let a model whose drop is exactly the margin pass in up to 6.7 instead of 5 of 100 cases (539 to
597 samples without any discordant pair at a margin of half a point; `benchmarks/gate_calibration.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgemill.recipe import Budget
from edgemill.validate.decide import check_pairs, decide, make_verdict, too_few
from edgemill.validate.exact_paired import EXACT, GAMMA_SHARE, exact_lower, exact_upper, p_value
from edgemill.validate.question import first_size
from edgemill.validate.score_interval import tango_upper
from edgemill.validate.verdict import Decision, Verdict

_EXACT_SEARCH_LIMIT = 500_000
"""Discordant pairs up to which `samples_needed_binary` asks the exact test; beyond, the score interval is the same."""
_SEARCH_STEP = 64
_RESOLUTION = 1000


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
    lower, upper = exact_lower(lost, won, n, confidence), exact_upper(lost, won, n, confidence)
    needed = None
    if decide(lower, upper, margin) is Decision.INCONCLUSIVE:
        needed = samples_needed_binary(lost / n, won / n, margin, confidence)
    return make_verdict(budget, ((lost - won) / n, lower, upper), n, EXACT, needed, points=True)


@lru_cache(maxsize=4096)
def samples_needed_binary(lost_rate: float, won_rate: float, margin: float, confidence: float) -> int | None:
    """Samples at which the test decides if lost and won samples keep coming at these rates.

    This is the size at which the expected outcome is decisive, not one with a promised power. Its
    counts are whole, so that a slightly larger size can be undecided again. Known to 1 sample up to
    1,000, above to 0.1 %. None where the drop is so near the margin that no practical number would do.
    """
    guess = first_size(lambda n: _decided(n, lost_rate, won_rate, margin, confidence, exact=False))
    if guess is None or guess * (lost_rate + won_rate) > _EXACT_SEARCH_LIMIT:
        return guess

    def decided(n: int) -> bool:
        return _decided(n, lost_rate, won_rate, margin, confidence, exact=True)

    low, high, step = guess - 1, guess, max(1, guess // _SEARCH_STEP)
    if decided(guess):
        while low > 0 and decided(low):
            low, high, step = max(0, low - step), low, 2 * step
    else:
        while not decided(high):
            low, high, step = high, high + step, 2 * step
    return _first(decided, low, high)


def _decided(n: int, lost_rate: float, won_rate: float, margin: float, confidence: float, *, exact: bool) -> bool:
    """Whether the expected outcome of n samples lies on one side of the margin for sure."""
    lost, won = n * lost_rate, n * won_rate
    if lost_rate - won_rate >= margin:
        lost, won, margin = won, lost, -margin
    if exact:
        # Whole counts, rounded against the decision; the inner rounding is for floats like 3.0000000000000004.
        return p_value(math.ceil(round(lost, 6)), math.floor(round(won, 6)), n, margin, confidence) <= 1 - confidence
    return tango_upper(lost, won, n, 1 - (1 - confidence) * (1 - GAMMA_SHARE)) < margin


def _first(decided: Callable[[int], bool], low: int, high: int) -> int:
    """By bisection a size in low..high that decides after one that does not."""
    while high - low > max(1, high // _RESOLUTION):
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high
