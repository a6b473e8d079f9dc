"""Fixed-sequence testing."""

from __future__ import annotations

import numpy as np

from edgemill.recipe import Budget
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.sequence import run_in_sequence
from edgemill.validate.verdict import Decision

BUDGET = Budget(max_accuracy_drop=0.02, confidence=0.95)


def verdict(lost: int, n: int = 1000):
    variant = np.ones(n)
    variant[:lost] = 0
    return compare_binary(np.ones(n), variant, BUDGET)


def test_stops_at_the_first_that_does_not_pass_and_never_tests_on():
    losses = {"a": 2, "b": 15, "c": 0, "d": 90}
    asked = []

    def test(name):
        asked.append(name)
        return verdict(losses[name])

    verdicts = run_in_sequence(list(losses), test, BUDGET)
    assert asked == ["a", "b"]
    assert [v.verdict for v in verdicts.values()] == [
        Decision.PASS,
        Decision.INCONCLUSIVE,
        Decision.INCONCLUSIVE,
        Decision.INCONCLUSIVE,
    ]
    assert "ended at b" in verdicts["c"].reason
    assert "INCONCLUSIVE" in verdicts["c"].reason
    assert verdicts["c"].n == 0
    assert verdicts["c"].upper is None
    assert not verdicts["c"].passed


def test_all_pass_and_empty():
    verdicts = run_in_sequence(["x", "y"], lambda name: verdict(1), BUDGET)
    assert all(v.passed for v in verdicts.values())
    assert list(verdicts) == ["x", "y"]
    assert run_in_sequence([], verdict, BUDGET) == {}


def test_the_promise_holds_for_the_family():
    """Three variants exactly at the margin: at least one passes in at most about 5 of 100 repetitions."""
    rng = np.random.default_rng(0)
    n, margin, repetitions = 1000, 0.02, 1500
    budget = Budget(max_accuracy_drop=margin, confidence=0.95)

    def at_the_margin(_name: str):
        lost, won, _same = rng.multinomial(n, [0.05, 0.03, 0.92])
        baseline, variant = np.ones(n), np.ones(n)
        variant[:lost] = 0
        baseline[lost : lost + won] = 0
        return compare_binary(baseline, variant, budget)

    wrong = sum(
        any(v.passed for v in run_in_sequence(["a", "b", "c"], at_the_margin, budget).values())
        for _ in range(repetitions)
    )
    # Standard error of the simulation: 0.006.
    assert wrong / repetitions <= 0.068
