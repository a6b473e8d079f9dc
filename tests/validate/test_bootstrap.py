"""Bootstrap of functions of sums."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from edgemill.validate.bootstrap import BCA_LIMIT, bootstrap_sums, bounds_of


def mean(sums, n):
    return sums[:, 0] / n


def deviation(sums, n):
    return np.sqrt(np.maximum(sums[:, 1] / n - (sums[:, 0] / n) ** 2, 0))


def test_bca_is_that_of_scipy():
    values = np.random.default_rng(0).exponential(size=120)
    features = np.stack([values, values**2], axis=1)
    ours = bootstrap_sums(features, deviation, 0.95, seed=1, resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.std, n_resamples=20_000, confidence_level=0.9, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.method == "BCa bootstrap"
    assert ours.estimate == pytest.approx(values.std())
    assert ours.lower == pytest.approx(theirs.low, rel=0.015)
    assert ours.upper == pytest.approx(theirs.high, rel=0.015)


def test_percentile_above_the_limit_is_near_the_normal_interval():
    values = np.random.default_rng(3).normal(2, 1, BCA_LIMIT + 1)
    found = bootstrap_sums(values[:, None], mean, 0.95, seed=0, resamples=4000)
    assert found.method == "percentile bootstrap"
    half = 1.645 * values.std() / np.sqrt(len(values))
    assert found.numbers == pytest.approx((values.mean(), values.mean() - half, values.mean() + half), abs=0.004)


def test_sparse_and_dense_are_the_same_and_repeatable():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(300, 5)) * (rng.random((300, 5)) < 0.3)

    def squares(sums, n):
        return (sums**2).sum(axis=1) / n

    dense = bootstrap_sums(features, squares, 0.9, seed=5, resamples=500)
    assert bootstrap_sums(sparse.csr_array(features), squares, 0.9, seed=5, resamples=500).numbers == pytest.approx(
        dense.numbers
    )
    assert bootstrap_sums(features, squares, 0.9, seed=5, resamples=500) == dense
    assert bootstrap_sums(features, squares, 0.9, seed=6, resamples=500) != dense


def test_values_that_are_not_finite_count_as_infinitely_bad():
    values = np.concatenate([np.linspace(0, 1, 90), np.full(10, np.nan)])
    found = bounds_of(0.5, values, None, 0.95)
    assert found.lower == -np.inf
    assert found.upper == np.inf
    few = np.concatenate([np.linspace(0, 1, 990), np.full(10, np.nan)])
    assert np.isfinite(bounds_of(0.5, few, None, 0.95).numbers).all()


def test_a_statistic_that_never_varies():
    found = bootstrap_sums(np.ones((50, 1)), mean, 0.95, seed=0, resamples=99)
    assert found.numbers == (1.0, 1.0, 1.0)
