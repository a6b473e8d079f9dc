"""Real-valued scores: is the variant not worse than the baseline by more than a margin? Paired, one-sided.

Drop = mean score of the baseline - mean score of the variant, on the same samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgemill.recipe import Budget
from edgemill.validate.decide import check_pairs, decide, make_verdict, too_few
from edgemill.validate.verdict import Decision, Verdict

BOOTSTRAP_BCA = "paired mean, BCa bootstrap"
BOOTSTRAP_PERCENTILE = "paired mean, percentile bootstrap"

MIN_BOOTSTRAP_SAMPLES = 30
"""Below this a bootstrap of real-valued differences promises too much; the gate stays INCONCLUSIVE."""

_BCA_LIMIT = 2000
_BATCH_ELEMENTS = 5_000_000
_SEARCH_LIMIT = 10**9


def compare_real(
    baseline: NDArray[np.float64],
    variant: NDArray[np.float64],
    budget: Budget,
    seed: int,
    resamples: int = 4999,
) -> Verdict:
    """Test real-valued per-sample scores by a bootstrap of the paired differences.

    Bias-corrected and accelerated (Efron 1987, JASA 82:171-185) up to 2000 samples. Above that the
    percentile interval, which no longer differs visibly and needs no jackknife.

    Args:
        baseline: (N,), score of every sample.
        variant: (N,), of the same samples in the same order.
        budget: margin, in units of the score, and one-sided confidence.
        seed: of the resampling.
        resamples: of the bootstrap.
    """
    check_pairs(baseline, variant)
    n, margin, confidence = len(baseline), budget.max_accuracy_drop, budget.confidence
    if n < MIN_BOOTSTRAP_SAMPLES:
        return too_few(budget, n, MIN_BOOTSTRAP_SAMPLES)
    drops = np.asarray(baseline - variant, dtype=np.float64)
    estimate = float(drops.mean())
    lower, upper, method = _bootstrap_bounds(drops, confidence, seed, resamples)
    needed = None
    if decide(lower, upper, margin) is Decision.INCONCLUSIVE and estimate != margin:
        z = float(stats.norm.ppf(confidence))
        wanted = (z * float(drops.std(ddof=1)) / (margin - estimate)) ** 2
        needed = max(n + 1, math.ceil(wanted)) if wanted <= _SEARCH_LIMIT else None
    return make_verdict(budget, (estimate, lower, upper), n, method, needed, points=False)


def _bootstrap_bounds(
    drops: NDArray[np.float64], confidence: float, seed: int, resamples: int
) -> tuple[float, float, str]:
    method, label = ("BCa", BOOTSTRAP_BCA) if len(drops) <= _BCA_LIMIT else ("percentile", BOOTSTRAP_PERCENTILE)
    if np.ptp(drops) == 0:
        return float(drops[0]), float(drops[0]), label
    # Two-sided at 2c - 1 leaves 1 - c on each side.
    result = stats.bootstrap(
        (drops,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _BATCH_ELEMENTS // len(drops)),
        confidence_level=2 * confidence - 1,
        method=method,
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high), label
