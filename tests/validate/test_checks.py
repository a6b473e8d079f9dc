"""The declared checks: their numbers against independent computations, their verdicts, and their honesty."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.metrics import f1_score, r2_score, root_mean_squared_error, top_k_accuracy_score

from edgemill.errors import DataError, RecipeError
from edgemill.recipe import Gates, Task
from edgemill.validate.calibration_error import _extreme_rise, equal_mass_bins, expected_calibration_error
from edgemill.validate.checks import declared_checks
from edgemill.validate.fidelity import FLOAT32_DB
from edgemill.validate.macro_f1 import macro_f1
from edgemill.validate.pair import Pair
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.proportion import clopper_pearson
from edgemill.validate.scores import score_samples
from edgemill.validate.top_k import top_k_hits
from edgemill.validate.unseen import allow_unseen
from edgemill.validate.verdict import Bound, Decision


def classifiers(n: int, classes: int = 4, noise: float = 0.2, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)) + 4 * np.eye(classes)[labels]
    return pair(special.softmax(logits, 1), special.softmax(logits + noise * rng.normal(size=logits.shape), 1), labels)


def pair(baseline, variant, labels, task: Task = Task.CLASSIFICATION, samples=None, resamples: int = 999) -> Pair:
    baseline, variant = np.asarray(baseline, np.float32), np.asarray(variant, np.float32)
    scores = np.stack([score_samples(task, outputs, labels, baseline) for outputs in (baseline, variant)])
    return Pair(task, baseline, variant, labels, scores, lambda: samples, 0, resamples)


def one_hot(answers, classes: int):
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def check(pair: Pair, seconds: float = 60, **gate):
    (only,) = declared_checks(Gates.model_validate(gate), 0.95, seconds)
    return only.run(pair)


# -- proportions ---------------------------------------------------------------------------------


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


# -- top k, F1 -----------------------------------------------------------------------------------


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


# -- unseen errors -------------------------------------------------------------------------------


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


# -- classes and slices --------------------------------------------------------------------------


def lossy(n: int, lost: dict[int, int], classes: int = 4) -> Pair:
    labels = np.arange(n) % classes
    answers = labels.copy()
    for label, count in lost.items():
        members = np.flatnonzero(labels == label)
        answers[members[:count]] = (label + 1) % classes
    return pair(one_hot(labels, classes), one_hot(answers, classes), labels)


def test_every_class_must_pass():
    fine = check(lossy(8000, {0: 10, 1: 15}), classes={"max_drop": 0.02})
    assert fine.verdict.passed
    assert [group.verdict for group in fine.groups] == [Decision.PASS] * 4
    assert fine.verdict.upper == max(group.upper for group in fine.groups)
    assert (fine.groups[1].lost, fine.groups[1].won, fine.groups[1].n) == (15, 0, 2000)
    bad = check(lossy(8000, {0: 10, 2: 100}), classes={"max_drop": 0.02})
    assert bad.verdict.verdict is Decision.FAIL
    assert [group.verdict for group in bad.groups].count(Decision.FAIL) == 1
    assert "1 of 4 groups lose more" in bad.verdict.reason
    assert "2 (drop 5" in bad.verdict.reason
    unsure = check(lossy(8000, {3: 35}), classes={"max_drop": 0.02})
    assert unsure.verdict.verdict is Decision.INCONCLUSIVE
    assert unsure.verdict.samples_needed > 8000


def test_one_class_of_many_fails_only_with_the_correction():
    """40 of 1000 lost is beyond a margin of 2.9 points by itself, but not as the worst of twenty classes."""
    alone, among = lossy(2000, {0: 40}, classes=2), lossy(20_000, {0: 40}, classes=20)
    by_itself = check(alone, classes={"max_drop": 0.029})
    corrected = check(among, classes={"max_drop": 0.029})
    assert by_itself.groups[0].lower == corrected.groups[0].lower > 0.029
    assert corrected.groups[0].verdict is Decision.INCONCLUSIVE
    assert corrected.verdict.verdict is Decision.INCONCLUSIVE
    assert corrected.verdict.lower < 0.029


def test_a_lossless_model_seldom_fails_in_any_of_many_classes():
    rng = np.random.default_rng(4)
    failed = 0
    for _ in range(60):
        labels = np.arange(3000) % 15
        answers = np.where(rng.random(3000) < 0.05, (labels + 1) % 15, labels)
        found = check(pair(one_hot(labels, 15), one_hot(answers, 15), labels), classes={"max_drop": 0.05})
        failed += found.verdict.verdict is Decision.FAIL
    assert failed / 60 <= 0.1


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of the user's, found as the worker's search path finds it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def write(name: str, body: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
        return f"python:{name}:f"

    return write


def test_slices_by_a_function_of_the_users(own):
    function = own("by_light", "def f(x, labels):\n    return np.where(x[:, 0] > 100, 'day', 'night')")
    labels = np.arange(4000) % 2
    x = np.stack([np.arange(4000) // 10, np.zeros(4000)], axis=1).astype(np.uint8)
    night = x[:, 0] <= 100
    answers = np.where(night & (np.arange(4000) % 10 == 0), 1 - labels, labels)
    found = check(
        pair(one_hot(labels, 2), one_hot(answers, 2), labels, samples=x),
        slices={"function": function, "max_drop": 0.02},
    )
    assert [(group.gate, group.name, group.n) for group in found.groups] == [
        ("slices", "day", int((~night).sum())),
        ("slices", "night", int(night.sum())),
    ]
    assert [group.verdict for group in found.groups] == [Decision.PASS, Decision.FAIL]
    assert found.verdict.verdict is Decision.FAIL


@pytest.mark.parametrize("missing", ["None", "''", "float('nan')", "' '"])
def test_a_sample_without_a_slice_is_named(own, missing):
    function = own("unnamed", f"def f(x, labels):\n    return ['a'] * 98 + [{missing}] * 2")
    drawn = pair(one_hot(np.zeros(100, int), 2), one_hot(np.zeros(100, int), 2), np.zeros(100, int), samples=None)
    found = check(drawn, slices={"function": function, "max_drop": 0.1})
    assert found.fault == "slice_unnamed"
    assert found.verdict.verdict is Decision.FAIL
    assert "2 of 100 samples have no slice, the first is sample 98" in found.verdict.reason


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("def f(x, labels):\n    return ['a']", DataError),
        ("def f(x, labels):\n    return 'a' * 2000", DataError),
        ("def f(x, labels):\n    return None", DataError),
        ("def f(x, labels):\n    return np.arange(2000)", DataError),
        ("def f(x, labels):\n    raise KeyError('k')", RecipeError),
        ("def f(x):\n    return []", RecipeError),
        ("f = 3", RecipeError),
        ("raise OSError", RecipeError),
    ],
)
def test_slice_functions_that_are_wrong(own, body, error):
    labels = np.zeros(2000, int)
    drawn = pair(one_hot(labels, 2), one_hot(labels, 2), labels)
    with pytest.raises(error, match=r"slice|own function|no function"):
        check(drawn, slices={"function": own("wrong", body), "max_drop": 0.1})
    assert "wrong" not in sys.modules


def test_a_changed_function_is_read_again(own):
    labels = np.zeros(100, int)
    drawn = pair(one_hot(labels, 2), one_hot(labels, 2), labels)
    names = []
    for name in ("old", "newer"):
        function = own("changing", f"def f(x, labels):\n    return ['{name}'] * 100")
        names.append(check(drawn, slices={"function": function, "max_drop": 0.1}).groups[0].name)
    assert names == ["old", "newer"]


# -- calibration error ---------------------------------------------------------------------------


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


# -- regression ----------------------------------------------------------------------------------


def regressors(n: int, worse: float, outputs: int = 1) -> Pair:
    rng = np.random.default_rng(6)
    targets = rng.normal(size=(n, outputs)).astype(np.float32)
    usual = targets + 0.3 * rng.normal(size=targets.shape)
    return pair(usual, usual + worse * rng.normal(size=targets.shape), targets, Task.REGRESSION)


@pytest.mark.parametrize("outputs", [1, 3])
def test_rmse_and_r2_are_those_of_sklearn(outputs):
    drawn = regressors(500, 0.2, outputs)
    models = (drawn.baseline, drawn.variant)
    errors = [root_mean_squared_error(drawn.labels.ravel(), o.ravel()) for o in models]
    found = check(drawn, rmse={"max_rise": 0.01}).verdict
    assert found.estimate == pytest.approx(errors[1] - errors[0], rel=1e-4)
    assert found.verdict is Decision.FAIL
    shares = [r2_score(drawn.labels, o, multioutput="variance_weighted") for o in models]
    found = check(drawn, r2={"max_drop": 0.2}).verdict
    assert found.estimate == pytest.approx(shares[0] - shares[1], rel=1e-4)
    assert found.passed


def test_rmse_bounds_are_those_of_scipy():
    drawn = regressors(300, 0.2)
    found = check(drawn, rmse={"max_rise": 0.01}).verdict
    errors = [((o - drawn.labels) ** 2).ravel() for o in (drawn.baseline, drawn.variant)]
    expected = stats.bootstrap(
        errors, lambda b, v: np.sqrt(v.mean()) - np.sqrt(b.mean()), paired=True, vectorized=False,
        confidence_level=0.9, n_resamples=3000, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (found.lower, found.upper) == pytest.approx(tuple(expected), abs=0.003)


def test_targets_that_never_change_leave_r2_undefined():
    outputs = np.random.default_rng(7).normal(size=(100, 1))
    found = check(pair(outputs, outputs, np.ones((100, 1), np.float32), Task.REGRESSION), r2={"max_drop": 0.1})
    assert found.fault == "labels_constant"
    assert found.verdict.verdict is Decision.FAIL


# -- fidelity ------------------------------------------------------------------------------------


def test_sqnr_by_hand_and_of_equal_outputs():
    rng = np.random.default_rng(8)
    signal = rng.normal(size=(1000, 20))
    drawn = pair(signal, signal + 0.01 * rng.normal(size=signal.shape), None, Task.UNLABELLED)
    found = check(drawn, fidelity={"min_sqnr_db": 39}).verdict
    power = (drawn.baseline.astype(float) ** 2).sum() / ((drawn.baseline - drawn.variant).astype(float) ** 2).sum()
    assert found.estimate == pytest.approx(10 * np.log10(power), abs=1e-3)
    assert found.estimate == pytest.approx(40, abs=0.3)
    assert found.passed
    assert check(drawn, fidelity={"min_sqnr_db": 41}).verdict.verdict is Decision.FAIL
    same = check(pair(signal, signal, None, Task.UNLABELLED), fidelity={"min_sqnr_db": 60}).verdict
    assert same.lower == pytest.approx(FLOAT32_DB)
    silent = np.zeros((50, 2))
    noisy = check(pair(silent, silent + 1, None, Task.UNLABELLED), fidelity={"min_sqnr_db": 60}).verdict
    assert noisy.verdict is Decision.FAIL


def test_divergence_is_that_of_scipy():
    drawn = classifiers(3000, noise=0.3)
    found = check(drawn, fidelity={"max_kl": 0.1}).verdict
    expected = special.rel_entr(drawn.baseline, drawn.variant).sum(axis=1).mean()
    assert found.estimate == pytest.approx(expected, rel=0.01)
    assert found.passed
    assert found.unit == "nats"
    zeros = pair(drawn.baseline, np.round(drawn.variant * 255) / 255, drawn.labels)
    assert np.isfinite(check(zeros, fidelity={"max_kl": 0.1}).verdict.estimate)
    values = pair(np.random.default_rng(0).normal(size=(50, 3)), np.zeros((50, 3)), None, Task.UNLABELLED)
    with pytest.raises(RecipeError, match="probabilities"):
        check(values, fidelity={"max_kl": 0.1})


def test_three_limits_of_fidelity_are_three_checks():
    gates = Gates.model_validate({"fidelity": {"min_agreement": 0.9, "min_sqnr_db": 1, "max_kl": 1}})
    found = [item.run(classifiers(500)).verdict for item in declared_checks(gates, 0.95, 60)]
    assert [verdict.gate for verdict in found] == ["fidelity_agreement", "fidelity_sqnr", "fidelity_kl"]
    assert all(verdict.passed for verdict in found)


# -- the recipe's own metric ---------------------------------------------------------------------


@pytest.fixture
def own_metric(own):
    return own(
        "own_metric",
        "def share_right(outputs, labels):\n    return (outputs.argmax(1) == labels).mean()\n"
        "def error(outputs, labels):\n    return 1 - share_right(outputs, labels)\n"
        "def slow(outputs, labels):\n    import time; time.sleep(0.01); return 1.0\n"
        "def undefined(outputs, labels):\n    return float('nan') if outputs[0, 0] < 0.5 else 1.0\n"
        "def wrong(outputs, labels):\n    return 'good'\n"
        "def vandal(outputs, labels):\n    outputs[:] = 0; labels[:] = 0; return 1.0\n"
        "def picky(outputs, labels):\n    return 1.0 if len(set(labels)) == 4 else float('nan')\n",
    )


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


# -- all of them ---------------------------------------------------------------------------------

ALL = {
    "top_k": {"k": 2, "max_drop": 0.01},
    "macro_f1": {"max_drop": 0.01},
    "classes": {"max_drop": 0.01},
    "flips": {"max_rate": 0.01},
    "calibration_error": {"max_rise": 0.01},
    "fidelity": {"min_agreement": 0.9, "min_sqnr_db": 20, "max_kl": 0.1},
}


@given(st.integers(0, 40), st.integers(3, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_few_odd_samples_never_crash_and_equal_answers_to_them_never_pass(n, classes, data):
    seed = data.draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    scale = data.draw(st.sampled_from([0.0, 1e-30, 1.0, 1e30]))
    labels = rng.integers(0, data.draw(st.integers(1, classes)), n)
    baseline = (rng.normal(size=(n, classes)) * scale).astype(np.float32)
    variant = baseline if data.draw(st.booleans()) else (rng.normal(size=(n, classes)) * scale).astype(np.float32)
    drawn = pair(baseline, variant, labels, resamples=199)
    for item in declared_checks(Gates.model_validate(ALL), 0.95, 60):
        found = item.run(drawn).verdict
        assert found.n == n
        assert found.reason
        assert variant is not baseline or not found.passed or found.gate.startswith("fidelity")


def test_checks_come_in_the_order_of_the_recipe():
    names = [item.question.gate for item in declared_checks(Gates.model_validate(ALL), 0.95, 60)]
    assert names == [
        "top_k",
        "macro_f1",
        "classes",
        "flips",
        "calibration_error",
        "fidelity_agreement",
        "fidelity_sqnr",
        "fidelity_kl",
    ]
    assert declared_checks(Gates(), 0.95, 60) == ()
