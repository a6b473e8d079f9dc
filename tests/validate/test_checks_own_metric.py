"""The recipe's own metric as a check."""

from __future__ import annotations

import numpy as np
import pytest

from edgemill.errors import RecipeError
from edgemill.validate.verdict import Decision
from tests.validate.pairs import check, classifiers, one_hot, pair


def metric(name: str, better: str = "higher", max_loss: float = 0.02) -> dict:
    return {"metric": {"name": name, "function": f"python:own_metric:{name}", "better": better, "max_loss": max_loss}}


def test_an_own_metric_in_both_directions(own_metric):
    drawn = classifiers(1500, noise=0.5)
    up, down = check(drawn, **metric("share_right")).verdict, check(drawn, **metric("error", "lower")).verdict
    assert up.gate == "share_right"
    assert (up.estimate, up.lower, up.upper) == pytest.approx((down.estimate, down.lower, down.upper))
    assert up.estimate == pytest.approx(drawn.scores[0].mean() - drawn.scores[1].mean())
    assert up.passed
    assert "BCa bootstrap, 999 resamples" in up.method
    assert check(classifiers(1500, noise=3), **metric("share_right")).verdict.verdict is Decision.FAIL


def test_an_own_metric_on_many_samples_has_near_the_bounds_of_the_paired_test(own_metric):
    drawn = classifiers(6000, noise=0.7)
    found = check(drawn, **metric("share_right")).verdict
    flips = drawn.scores[0] - drawn.scores[1]
    half = 1.645 * flips.std() / np.sqrt(6000)
    assert found.upper == pytest.approx(flips.mean() + half, abs=0.001)
    assert found.lower == pytest.approx(flips.mean() - half, abs=0.001)


def test_a_slow_metric_ends_at_its_budget(own_metric):
    drawn = classifiers(2500)
    found = check(drawn, seconds=0.3, **metric("slow")).verdict
    assert found.verdict is Decision.INCONCLUSIVE
    assert "too slow" in found.reason
    assert "in 0.3 s" in found.reason


def test_a_metric_that_is_not_a_number(own_metric):
    labels = np.zeros(100, int)
    good, bad = one_hot(labels, 2), one_hot(labels + 1, 2)
    found = check(pair(good, bad, labels), **metric("undefined"))
    assert found.fault == "metric_undefined"
    assert found.verdict.verdict is Decision.FAIL
    for broken in (pair(bad, good, labels), pair(good, good, labels)):
        with pytest.raises(RecipeError, match="metric"):
            check(broken, **metric("undefined" if broken.baseline[0, 0] < 0.5 else "wrong"))


def test_a_metric_undefined_in_many_resamples_decides_nothing(own_metric):
    labels = np.array([0] * 97 + [1, 2, 3])
    found = check(pair(one_hot(labels, 4), one_hot(labels, 4), labels), **metric("picky")).verdict
    assert found.verdict is Decision.INCONCLUSIVE
    assert found.estimate is None


def test_a_metric_cannot_change_what_is_judged(own_metric):
    drawn = classifiers(100)
    before = drawn.baseline.copy(), drawn.labels.copy()
    check(drawn, **metric("vandal"))
    assert (drawn.baseline == before[0]).all()
    assert (drawn.labels == before[1]).all()
