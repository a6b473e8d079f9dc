"""The check of the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from edgemill.validate.calibration_error import _extreme_rise, equal_mass_bins, expected_calibration_error
from edgemill.validate.pair import Pair
from edgemill.validate.verdict import Decision
from tests.validate.pairs import check, pair


def test_calibration_error_by_hand():
    confidence = np.array([0.6, 0.6, 0.8, 0.8])
    right = np.array([1.0, 0.0, 1.0, 1.0])
    assert expected_calibration_error(confidence, right, 2) == pytest.approx((2 * 0.1 + 2 * 0.2) / 4)
    assert expected_calibration_error(confidence, right, 1) == pytest.approx(abs(0.7 - 0.75))


@given(st.integers(2, 300), st.integers(2, 20), st.integers(0, 99))
@settings(max_examples=40)
def test_equal_mass_bins_hold_equal_shares_and_keep_ties_together(n, bins, seed):
    confidence = np.random.default_rng(seed).random(n)
    places = equal_mass_bins(confidence, bins)
    assert places.min() >= 0
    assert places.max() < bins
    assert np.bincount(places).max() <= n // bins + 2
    coarse = np.round(confidence, 1)
    places = equal_mass_bins(coarse, bins)
    assert all(len(set(places[coarse == value])) == 1 for value in set(coarse))


def sure_by(rise: float, n: int, seed: int) -> Pair:
    """A calibrated baseline, and a variant too sure of itself, with noise."""
    rng = np.random.default_rng(seed)
    sure = 0.5 + 0.4 * rng.beta(3, 1, n)
    labels = (rng.random(n) < sure).astype(int)
    ours = np.clip(sure + rise + 0.02 * rng.normal(size=n), 0.501, 0.999)
    return pair(np.stack([1 - sure, sure], 1), np.stack([1 - ours, ours], 1), labels)


def test_the_bias_of_the_calibration_error_hides_no_rise():
    """For a calibrated baseline the plain difference of both errors would pass nearly always."""
    rise, passed, plain = 0.02, 0, 0
    for seed in range(60):
        drawn = sure_by(rise, 1500, seed)
        passed += check(drawn, calibration_error={"max_rise": rise}).verdict.passed
        errors = [
            expected_calibration_error(o.max(1), s, 15)
            for o, s in zip((drawn.baseline, drawn.variant), drawn.scores, strict=True)
        ]
        plain += errors[1] - errors[0] < rise
    assert plain / 60 > 0.8
    assert passed / 60 <= 0.07


@given(st.integers(1, 6), st.integers(0, 999), st.sampled_from([1, -1]))
@settings(max_examples=30)
def test_the_largest_rise_is_not_below_any_that_the_baseline_allows(bins, seed, sign):
    rng = np.random.default_rng(seed)
    middle, error, radius = rng.normal(0, 0.02, bins), rng.uniform(0.002, 0.02, bins), 4.0
    change = rng.normal(0, 0.03, (3, bins))
    steps = rng.normal(size=(4000, bins)) * (rng.random((4000, bins)) < 0.6)
    steps *= radius / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)
    gaps = (middle + error * steps)[:, None, :]
    rises = sign * (np.abs(gaps + change) - np.abs(gaps)).sum(axis=2)
    found = _extreme_rise(change, 1.0, middle, error, radius, sign)
    assert (found >= rises.max(axis=0) - 1e-12).all()
    assert (found <= np.abs(change).sum(axis=1) + 1e-12).all()


def test_calibration_error_decisions():
    gate = {"calibration_error": {"max_rise": 0.02}}
    assert check(sure_by(0.0, 4000, 0), **gate).verdict.passed
    bad = check(sure_by(0.09, 20_000, 0), **gate).verdict
    assert bad.verdict is Decision.FAIL
    assert bad.estimate == pytest.approx(0.09, abs=0.02)
    few = check(sure_by(0.0, 149, 0), **gate).verdict
    assert few.samples_needed == 150


def test_logits_and_probabilities_are_calibrated_alike():
    rng = np.random.default_rng(5)
    labels = np.arange(2000) % 3
    logits = rng.normal(size=(2000, 3)) + 3 * np.eye(3)[labels]
    gate = {"calibration_error": {"max_rise": 0.02}}
    softer = 0.8 * logits
    of_logits = check(pair(logits, softer, labels), **gate).verdict
    of_probabilities = check(pair(special.softmax(logits, 1), special.softmax(softer, 1), labels), **gate).verdict
    assert of_logits.estimate == pytest.approx(of_probabilities.estimate, abs=1e-5)
    dropped_softmax = check(pair(special.softmax(logits, 1), logits, labels), **gate).verdict
    assert dropped_softmax.verdict is Decision.FAIL
