"""All declared checks together."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.recipe import Gates
from edgemill.validate.checks import declared_checks
from tests.validate.pairs import pair

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
