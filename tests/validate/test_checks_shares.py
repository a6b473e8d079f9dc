"""Checks of shares (flips, top k) and of F1: their numbers against independent computations, and their honesty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, top_k_accuracy_score

from edgemill.errors import RecipeError
from edgemill.validate.macro_f1 import macro_f1
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.proportion import clopper_pearson
from edgemill.validate.top_k import top_k_hits
from edgemill.validate.unseen import allow_unseen
from edgemill.validate.verdict import Bound, Decision
from tests.validate.pairs import check, classifiers, one_hot, pair


@given(st.integers(1, 3000), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=40)
def test_clopper_pearson_is_that_of_scipy(n, data, confidence):
    count = data.draw(st.integers(0, n))
    expected = stats.binomtest(count, n).proportion_ci(2 * confidence - 1, method="exact")
    assert clopper_pearson(count, n, confidence) == pytest.approx(tuple(expected), abs=1e-9)


def test_flips_count_right_and_wrong_answers_alike():
    labels = np.zeros(1000, int)
    answers = np.zeros(1000, int)
    answers[:20] = 1
    usual = np.zeros(1000, int)
    usual[20:40] = 1
    found = check(pair(one_hot(usual, 2), one_hot(answers, 2), labels), flips={"max_rate": 0.06}).verdict
    assert found.estimate == 0.04
    assert found.upper == pytest.approx(stats.beta.ppf(0.95, 41, 960))
    assert found.passed
    assert check(pair(one_hot(usual, 2), one_hot(answers, 2), labels), flips={"max_rate": 0.045}).verdict.samples_needed
    assert (
        check(pair(one_hot(usual, 2), one_hot(answers, 2), labels), flips={"max_rate": 0.01}).verdict.verdict == "FAIL"
    )


def test_samples_needed_for_a_share_would_decide():
    same = pair(one_hot(np.zeros(50, int), 2), one_hot(np.zeros(50, int), 2), np.zeros(50, int))
    found = check(same, flips={"max_rate": 0.01}).verdict
    assert found.verdict is Decision.INCONCLUSIVE
    assert found.samples_needed == 299  # ln(0.05) / ln(0.99), rounded up
    floor = check(same, fidelity={"min_agreement": 0.99}).verdict
    assert floor.bound is Bound.ABOVE
    assert floor.samples_needed == 299
    none = pair(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, int))
    assert check(none, flips={"max_rate": 0.01}).verdict.samples_needed == 299


def test_top_k_is_that_of_sklearn_and_top_1_the_accuracy():
    drawn = classifiers(500, classes=6, noise=1.0)
    for k in (1, 2, 4):
        hits = top_k_hits(drawn.variant, drawn.labels, k)
        assert hits.mean() == pytest.approx(top_k_accuracy_score(drawn.labels, drawn.variant, k=k))
    assert (top_k_hits(drawn.variant, drawn.labels, 1) == drawn.scores[1]).all()
    ties = np.ones((3, 3), np.float32)
    assert top_k_hits(ties, np.arange(3), 2).tolist() == [1, 1, 0]


def test_top_k_is_tested_as_accuracy_is():
    drawn = classifiers(3000, classes=6, noise=0.5)
    found = check(drawn, top_k={"k": 2, "max_drop": 0.01}).verdict
    hits = [top_k_hits(outputs, drawn.labels, 2) for outputs in (drawn.baseline, drawn.variant)]
    from edgemill.recipe import Budget

    expected = compare_binary(*hits, Budget(max_accuracy_drop=0.01))
    assert (found.lower, found.upper, found.verdict) == (expected.lower, expected.upper, expected.verdict)
    assert found.gate == "top_k"
    assert "top-2 accuracy" in found.reason
    with pytest.raises(RecipeError, match="every label"):
        check(drawn, top_k={"k": 6, "max_drop": 0.01})


def test_macro_f1_is_that_of_sklearn():
    rng = np.random.default_rng(1)
    labels, answers = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    assert macro_f1(answers, labels, 5) == pytest.approx(f1_score(labels, answers, average="macro"))
    usual = np.where(rng.random(400) < 0.7, labels, answers)
    found = check(pair(one_hot(usual, 5), one_hot(answers, 5), labels), macro_f1={"max_drop": 0.1}).verdict
    expected = f1_score(labels, usual, average="macro") - f1_score(labels, answers, average="macro")
    assert found.estimate == pytest.approx(expected)
    assert found.lower < expected < found.upper
    assert found.verdict is Decision.FAIL


def test_macro_f1_bounds_are_those_of_resampling_samples():
    drawn = classifiers(400, noise=1.5)
    answers = [outputs.argmax(1) for outputs in (drawn.baseline, drawn.variant)]
    rng = np.random.default_rng(2)
    drops = []
    for _ in range(1500):
        rows = rng.integers(0, 400, 400)
        first, second = (f1_score(drawn.labels[rows], a[rows], average="macro") for a in answers)
        drops.append(first - second)
    found = check(drawn, macro_f1={"max_drop": 0.01}).verdict
    harm = (found.estimate - found.lower) - (found.estimate - np.quantile(drops, 0.05))
    assert found.upper == pytest.approx(np.quantile(drops, 0.95), abs=0.012)
    assert found.upper > np.quantile(drops, 0.95)  # unseen errors count
    assert 0 < harm < 0.012


@pytest.mark.parametrize("gate", [{"macro_f1": {"max_drop": 0.01}}, {"classes": {"max_drop": 0.01}}])
def test_a_class_without_samples_is_named(gate):
    labels = np.arange(300) % 3
    outputs = one_hot(labels, 5)
    found = check(pair(outputs, outputs, labels), **gate)
    assert found.verdict.verdict is Decision.FAIL
    assert found.fault == "class_without_samples"
    assert "2 of 5 classes (3, 4)" in found.verdict.reason


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 10, 30])
def test_bounds_with_unseen_errors_are_near_the_exact_poisson_bounds(count):
    half = 1.6449 * np.sqrt(count)
    _, _, upper = allow_unseen((count, count - half, count + half), (1.0, 1.0), 0.95)
    assert upper == pytest.approx(stats.chi2.ppf(0.95, 2 * count + 2) / 2, rel=0.01)


@pytest.mark.parametrize(
    "gate",
    [
        {"macro_f1": {"max_drop": 0.02}},
        {"metric": {"function": "python:own_metric:share_right", "better": "higher", "max_loss": 0.02}},
        {"calibration_error": {"max_rise": 0.01, "bins": 3}},
        {"fidelity": {"max_kl": 0.05}},
    ],
)
def test_equal_answers_to_few_samples_prove_nothing(gate, own_metric):
    few, many = (pair(one_hot(np.arange(n) % 2, 2), one_hot(np.arange(n) % 2, 2), np.arange(n) % 2) for n in (40, 3000))
    found = check(few, **gate).verdict
    assert found.verdict is Decision.INCONCLUSIVE
    assert 40 < found.samples_needed < 3000
    assert check(many, **gate).verdict.passed


def test_a_macro_f1_at_the_margin_seldom_passes():
    rng = np.random.default_rng(3)
    n, rate, passed = 250, 0.02, 0
    for _ in range(250):
        labels = np.arange(n) % 2
        answers = np.where(rng.random(n) < rate, 1 - labels, labels)  # macro-F1 of 1 - rate
        drawn = pair(one_hot(labels, 2), one_hot(answers, 2), labels)
        passed += check(drawn, macro_f1={"max_drop": rate}).verdict.passed
    assert passed / 250 <= 0.06
