"""Is the variant not worse than the baseline by more than a margin? Paired, one-sided.

Drop = mean score of the baseline - mean score of the variant, on the same samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from edgemill.errors import InvariantError
from edgemill.recipe import Budget
from edgemill.validate.verdict import Decision, Verdict

TANGO = "paired proportions, score interval (Tango 1998)"
BOOTSTRAP_BCA = "paired mean, BCa bootstrap"
BOOTSTRAP_PERCENTILE = "paired mean, percentile bootstrap"
NO_TEST = "none"
GATE_NAME = "accuracy"

MIN_BOOTSTRAP_SAMPLES = 30
"""Below this a bootstrap of real-valued differences promises too much; the gate stays INCONCLUSIVE."""

_BCA_LIMIT = 2000
_BATCH_ELEMENTS = 5_000_000
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
    _check_pairs(baseline, variant)
    n, margin, confidence = len(baseline), budget.max_accuracy_drop, budget.confidence
    if n == 0:
        return _too_few(budget, 0, samples_needed_binary(0.0, 0.0, margin, confidence))
    lost = int(np.count_nonzero((baseline == 1) & (variant == 0)))
    won = int(np.count_nonzero((baseline == 0) & (variant == 1)))
    lower, upper = tango_lower(lost, won, n, confidence), tango_upper(lost, won, n, confidence)
    needed = None
    if decide(lower, upper, margin) is Decision.INCONCLUSIVE:
        needed = samples_needed_binary(lost / n, won / n, margin, confidence)
    return _verdict(budget, ((lost - won) / n, lower, upper), n, TANGO, needed)


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
    _check_pairs(baseline, variant)
    n, margin, confidence = len(baseline), budget.max_accuracy_drop, budget.confidence
    if n < MIN_BOOTSTRAP_SAMPLES:
        return _too_few(budget, n, MIN_BOOTSTRAP_SAMPLES)
    drops = np.asarray(baseline - variant, dtype=np.float64)
    estimate = float(drops.mean())
    lower, upper, method = _bootstrap_bounds(drops, confidence, seed, resamples)
    needed = None
    if decide(lower, upper, margin) is Decision.INCONCLUSIVE and estimate != margin:
        z = float(stats.norm.ppf(confidence))
        wanted = (z * float(drops.std(ddof=1)) / (margin - estimate)) ** 2
        needed = max(n + 1, math.ceil(wanted)) if wanted <= _SEARCH_LIMIT else None
    return _verdict(budget, (estimate, lower, upper), n, method, needed)


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


def _check_pairs(baseline: NDArray[np.float64], variant: NDArray[np.float64]) -> None:
    if baseline.shape != variant.shape or baseline.ndim != 1:
        raise InvariantError(
            "A paired test needs one score a sample from each side.",
            expected=str(baseline.shape),
            got=str(variant.shape),
        )
    if not (np.isfinite(baseline).all() and np.isfinite(variant).all()):
        raise InvariantError("A score is not finite.", remedy="find_fault names such predictions beforehand")


def _too_few(budget: Budget, n: int, needed: int | None) -> Verdict:
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


def _verdict(budget: Budget, numbers: tuple[float, float, float], n: int, method: str, needed: int | None) -> Verdict:
    estimate, lower, upper = numbers
    margin, confidence = budget.max_accuracy_drop, budget.confidence
    decision = decide(lower, upper, margin)
    # Proportions in points (hundredths), means in the unit of the score.
    factor, unit = (100, " points") if method == TANGO else (1, "")
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
