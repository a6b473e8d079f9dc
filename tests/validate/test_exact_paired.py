"""The exact bound of the drop: against enumeration, closed forms, and its promise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgemill.errors import InvariantError
from edgemill.recipe import Budget
from edgemill.validate.exact_paired import GAMMA_SHARE, exact_lower, exact_upper, p_value
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.score_interval import tango_upper
from edgemill.validate.verdict import Decision

CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999])


def outcomes(n: int) -> list[tuple[int, int]]:
    return [(lost, won) for lost in range(n + 1) for won in range(n + 1 - lost)]


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


def enumerated_p_value(lost: int, won: int, n: int, drop: float, confidence: float) -> float:
    """Every outcome, its multinomial probability, and a dense grid of the nuisance: nothing shared with the code."""
    gamma = (1 - confidence) * GAMMA_SHARE
    interval = stats.binomtest(lost + won, n).proportion_ci(1 - gamma, "exact")
    observed = tango_upper(lost, won, n, confidence)
    region = [(x, y) for x, y in outcomes(n) if tango_upper(x, y, n, confidence) <= observed + 1e-9]
    low, high = max(interval.low, drop), interval.high
    if low > high:
        return gamma
    largest = 0.0
    x, y = np.array(region).T
    for s in np.append(np.linspace(low, high, 800), np.clip(-drop, low, high)):
        # With fewer discordant pairs than the drop is negative, the nearest possible drop is -s: all are won.
        nearest = max(drop, -s)
        chances = [(s + nearest) / 2, (s - nearest) / 2, 1 - s]
        largest = max(largest, stats.multinomial.pmf(np.stack([x, y, n - x - y], 1), n, chances).sum())
    return min(1.0, gamma + largest)


@settings(deadline=None, max_examples=60)
@given(counts(9), st.floats(-0.9, 0.95), CONFIDENCES)
def test_p_value_is_that_of_enumeration(observed, drop, confidence):
    ours = p_value(*observed, drop, confidence)
    theirs = enumerated_p_value(*observed, drop, confidence)
    assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("n", [1, 2, 7, 20, 599, 10_000])
def test_nothing_discordant_has_a_closed_form(n, confidence):
    """The worst case: every discordant sample is lost, so that only "nothing lost" is as good, (1 - d)^n = level."""
    level = (1 - confidence) * (1 - GAMMA_SHARE)
    assert exact_upper(0, 0, n, confidence) == pytest.approx(1 - level ** (1 / n), rel=1e-5)
    assert exact_lower(0, 0, n, confidence) == -exact_upper(0, 0, n, confidence)


@settings(deadline=None, max_examples=60)
@given(counts(400), CONFIDENCES)
def test_bound_is_where_the_p_value_is_the_level(observed, confidence):
    upper = exact_upper(*observed, confidence)
    assert p_value(*observed, upper, confidence) <= 1 - confidence or upper == 1
    width = upper - (observed[0] - observed[1]) / observed[2]
    if width > 1e-9 and upper < 1:
        assert p_value(*observed, upper - 1e-3 * width, confidence) > (1 - confidence) * 0.99


@settings(deadline=None, max_examples=80)
@given(counts(3000), CONFIDENCES)
def test_bounds_enclose_the_estimate_and_mirror(observed, confidence):
    lost, won, n = observed
    lower, upper = exact_lower(lost, won, n, confidence), exact_upper(lost, won, n, confidence)
    assert -1 <= lower <= (lost - won) / n <= upper <= 1
    assert lower == -exact_upper(won, lost, n, confidence)


@pytest.mark.parametrize(("n", "confidence"), [(1, 0.95), (6, 0.9), (15, 0.95), (25, 0.99)])
def test_one_more_lost_never_helps_and_one_more_won_never_harms(n, confidence):
    upper = {outcome: exact_upper(*outcome, n, confidence) for outcome in outcomes(n)}
    for (lost, won), bound in upper.items():
        assert upper.get((lost + 1, won), 1.0) >= bound
        assert upper.get((lost, won + 1), -1.0) <= bound
        assert won == 0 or upper[lost + 1, won - 1] >= bound


@settings(deadline=None, max_examples=60)
@given(counts(5000), st.data())
def test_order_holds_for_large_samples_too(observed, data):
    lost, won, n = observed
    confidence = data.draw(CONFIDENCES)
    bound = exact_upper(lost, won, n, confidence)
    if lost + won < n:
        assert exact_upper(lost + 1, won, n, confidence) >= bound
        assert exact_upper(lost, won + 1, n, confidence) <= bound
    if won:
        assert exact_upper(lost + 1, won - 1, n, confidence) >= bound


@settings(deadline=None, max_examples=60)
@given(counts(2000), st.lists(st.floats(-1, 1), min_size=2, max_size=6))
def test_p_value_falls_with_the_drop(observed, drops):
    values = [p_value(*observed, drop, 0.95) for drop in sorted(drops)]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(values))


@pytest.mark.parametrize(("n", "confidence"), [(1, 0.95), (3, 0.9), (8, 0.95), (14, 0.9), (20, 0.99)])
def test_bound_holds_for_every_true_drop_and_discordance(n, confidence):
    """Exact coverage over the whole parameter space, not only where the test looks for its worst case."""
    x, y = np.array(outcomes(n)).T
    upper = np.array([exact_upper(int(lost), int(won), n, confidence) for lost, won in zip(x, y, strict=True)])
    for drop in np.linspace(-0.99, 0.99, 67):
        missed = upper < drop
        for s in np.linspace(abs(drop), 1, 21):
            chances = [(s + drop) / 2, (s - drop) / 2, 1 - s]
            wrong = stats.multinomial.pmf(np.stack([x, y, n - x - y], 1)[missed], n, chances).sum()
            assert wrong <= 1 - confidence


@pytest.mark.parametrize(("n", "margin", "confidence"), [(100, 0.02, 0.9), (120, 0.01, 0.95), (60, 0.05, 0.99)])
def test_a_model_at_the_margin_passes_at_most_at_the_promised_rate(n, margin, confidence):
    """Exact, at every discordance; the score interval alone breaks the promise."""
    level = 1 - confidence
    pairs = np.arange(n + 1)

    def most(passes) -> np.ndarray:
        limits = []
        for s in pairs.tolist():
            low, high = -1, s + 1
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if passes(middle, s - middle) else (low, middle)
            limits.append(low)
        return np.array(limits)

    def worst(limits: np.ndarray) -> float:
        shares = margin + (1 - margin) * np.linspace(0, 1, 300) ** 2
        return max(
            (stats.binom.pmf(pairs, n, s) * stats.binom.cdf(limits, pairs, (s + margin) / (2 * s))).sum()
            for s in shares
        )

    ours = worst(most(lambda lost, won: exact_upper(lost, won, n, confidence) < margin))
    asymptotic = worst(most(lambda lost, won: tango_upper(lost, won, n, confidence) < margin))
    assert 0.6 * level < ours <= level
    if n < 120:
        assert asymptotic > level


@pytest.mark.parametrize(("lost", "won", "n"), [(114, 93, 10_000), (1000, 1000, 10_000), (2000, 1900, 50_000)])
def test_close_to_the_score_interval_where_that_one_is_good(lost, won, n):
    width = tango_upper(lost, won, n, 0.95) - (lost - won) / n
    assert exact_upper(lost, won, n, 0.95) == pytest.approx(tango_upper(lost, won, n, 0.95), abs=0.005 * width)


@settings(deadline=None, max_examples=50)
@given(counts(2000), st.sampled_from([0.002, 0.005, 0.02, 0.1]), st.sampled_from([0.9, 0.95, 0.99]))
def test_verdict_and_p_value_agree(observed, margin, confidence):
    lost, won, n = observed
    baseline, variant = np.ones(n), np.ones(n)
    variant[:lost] = 0
    baseline[lost : lost + won] = 0
    verdict = compare_binary(baseline, variant, Budget(max_accuracy_drop=margin, confidence=confidence))
    good = p_value(lost, won, n, margin, confidence) <= 1 - confidence
    bad = p_value(won, lost, n, -margin, confidence) <= 1 - confidence
    expected = Decision.PASS if good else Decision.FAIL if bad else Decision.INCONCLUSIVE
    assert verdict.verdict is expected


@pytest.mark.parametrize(("lost", "won", "n"), [(3, 3, 5), (-1, 0, 5), (0, 0, 0), (math.nan, 0, 5)])
def test_impossible_counts_are_refused(lost, won, n):
    with pytest.raises(InvariantError):
        exact_upper(lost, won, n, 0.95)
    with pytest.raises(InvariantError):
        p_value(lost, won, n, 0.01, 0.95)
