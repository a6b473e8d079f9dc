"""Checks of outputs themselves: regression and fidelity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import r2_score, root_mean_squared_error

from edgemill.errors import RecipeError
from edgemill.recipe import Gates, Task
from edgemill.validate.checks import declared_checks
from edgemill.validate.fidelity import FLOAT32_DB
from edgemill.validate.pair import Pair
from edgemill.validate.verdict import Decision
from tests.validate.pairs import check, classifiers, pair


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
