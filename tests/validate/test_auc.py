"""The area under the ROC curve and its paired test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import roc_auc_score

from edgemill.recipe import Budget
from edgemill.validate.auc import MIN_OF_A_CLASS, area_under_curve, compare_auc, delong, reversed_ranking
from edgemill.validate.verdict import Decision

BUDGET = Budget(max_accuracy_drop=0.02, confidence=0.95)


def slow_delong(scores: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong, DeLong and Clarke-Pearson (1988), equations 2 to 6, pair by pair."""
    placed = [(s[anomalous][:, None], s[~anomalous][None, :]) for s in scores]
    psi = np.array([(x > y) + 0.5 * (x == y) for x, y in placed])
    of_anomalous, of_normal = psi.mean(axis=2), psi.mean(axis=1)
    m, n = psi.shape[1:]
    return psi.mean(axis=(1, 2)), np.cov(of_anomalous) / m + np.cov(of_normal) / n


@given(st.data(), st.integers(2, 15), st.integers(2, 15), st.integers(2, 3))
def test_fast_delong_is_the_definition(data, m, n, k):
    scores = data.draw(hnp.arrays(np.float64, (k, m + n), elements=st.integers(-3, 3).map(float)))
    anomalous = np.array([True] * m + [False] * n)
    order = np.array(data.draw(st.permutations(range(m + n))))
    areas, covariance = delong(scores[:, order], anomalous[order])
    expected = slow_delong(scores, anomalous)
    np.testing.assert_allclose(areas, expected[0], atol=1e-12)
    np.testing.assert_allclose(covariance, expected[1], atol=1e-12)
    np.testing.assert_allclose(areas, [roc_auc_score(anomalous, s) for s in scores], atol=1e-12)


def detectors(n: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    anomalous = rng.random(n) < 0.3
    baseline = rng.normal(size=n) + 1.5 * anomalous
    return baseline, baseline + noise * rng.normal(size=n), anomalous


def test_the_standard_error_is_that_of_a_bootstrap():
    baseline, variant, anomalous = detectors(600, 0)
    rng = np.random.default_rng(1)
    drops = []
    for _ in range(1500):
        rows = rng.integers(0, 600, 600)
        areas, _ = delong(np.stack([baseline, variant])[:, rows], anomalous[rows])
        drops.append(areas[0] - areas[1])
    _, covariance = delong(np.stack([baseline, variant]), anomalous)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert error == pytest.approx(np.std(drops), rel=0.08)


def test_decisions():
    baseline, variant, anomalous = detectors(20_000, 2)
    same = compare_auc(baseline, baseline, anomalous, BUDGET)
    assert same.verdict is Decision.PASS
    assert same.estimate == 0
    worse = compare_auc(baseline, variant, anomalous, BUDGET)
    assert worse.verdict is Decision.FAIL
    assert worse.estimate == pytest.approx(area_under_curve(baseline, anomalous) - area_under_curve(variant, anomalous))
    few = compare_auc(*detectors(300, 2), BUDGET)
    assert few.verdict is Decision.INCONCLUSIVE
    assert few.samples_needed > 300


def test_a_flawless_detector_of_few_anomalies_proves_nothing():
    anomalous = np.arange(1000) < 30
    perfect = anomalous.astype(float)
    verdict = compare_auc(perfect, perfect, anomalous, BUDGET)
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert verdict.upper == pytest.approx(-np.log(0.05) / 30)  # the rule of three
    fewer = compare_auc(perfect[:1000], perfect, np.arange(1000) < MIN_OF_A_CLASS - 1, BUDGET)
    assert fewer.upper is None
    assert fewer.samples_needed == 1112


@pytest.mark.parametrize("rare_kind", [True, False])
def test_a_detector_at_the_margin_seldom_passes(rare_kind):
    """It misses a share of one kind altogether, of which the samples may hold none."""
    n, share, margin = 300, 0.3, 0.01
    rng = np.random.default_rng(3)
    passed = 0
    for _ in range(400):
        anomalous = (np.arange(n) < share * n) == rare_kind
        rare = anomalous == rare_kind
        baseline = rng.normal(size=n) + 6 * anomalous
        variant = np.where(rare & (rng.random(n) < margin), -50.0 if rare_kind else 50.0, baseline)
        passed += compare_auc(baseline, variant, anomalous, Budget(max_accuracy_drop=margin, confidence=0.95)).passed
    assert passed / 400 <= 0.05


def test_coverage_of_noisier_scores():
    """Upper bounds hold in about 95 of 100 repetitions; a little more, for the pseudo-samples."""
    separation, noise = 1.5, 0.5
    true = stats.norm.cdf(separation / np.sqrt(2)) - stats.norm.cdf(separation / np.sqrt(2 * (1 + noise**2)))
    held = [compare_auc(*detectors(400, 10 + seed), BUDGET) for seed in range(400)]
    assert 0.93 <= np.mean([v.upper >= true for v in held]) <= 1
    assert 0.93 <= np.mean([v.lower <= true for v in held]) <= 1


def test_a_ranking_the_wrong_way_round_is_told_from_a_useless_one():
    baseline, _, anomalous = detectors(500, 4)
    assert reversed_ranking(-baseline, anomalous, BUDGET)
    assert not reversed_ranking(baseline, anomalous, BUDGET)
    assert not reversed_ranking(np.random.default_rng(0).normal(size=500), anomalous, BUDGET)
    assert not reversed_ranking(np.array([0.0, 1.0]), np.array([True, False]), BUDGET)
