"""What a study is told of a chain, from the facts of its steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.errors import RecipeError
from edgemill.recipe import Budget, Goal
from edgemill.search.outcomes import TooBig, outcome_of, require_energy, violation
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.verdict import GateFacts

BUDGET = Budget(max_accuracy_drop=0.01, confidence=0.95)


def screened(lost: int, won: int, n: int) -> GateFacts:
    baseline = np.zeros(n)
    baseline[:lost] = 1
    variant = np.zeros(n)
    variant[n - won :] = 1
    verdict = compare_binary(baseline, variant, BUDGET)
    return GateFacts(verdict=verdict, accuracy=0.9, baseline_accuracy=0.91, lost=lost, won=won)


def benchmark(ratio: float, share: float) -> dict[str, float]:
    return {"ratio": ratio, "compressed_bytes": 1000 * share, "baseline_compressed_bytes": 1000.0}


def test_ratios_of_two_targets_meet_in_their_geometric_mean():
    measured = {"a": benchmark(0.1, 0.5), "b": benchmark(0.4, 0.02)}
    outcome = outcome_of([Goal.LATENCY, Goal.COMPRESSED_BYTES], measured, {"a": screened(5, 5, 1000)}, 1000)
    assert outcome.values[Goal.LATENCY] == pytest.approx(0.2)
    assert outcome.values[Goal.COMPRESSED_BYTES] == pytest.approx(0.1)


def test_a_chain_that_lost_too_much_for_certain_is_over_the_budget_without_having_been_measured():
    outcome = outcome_of([Goal.LATENCY], {}, {"a": screened(100, 0, 1000)}, 1000)
    assert outcome.values == {}
    assert 0 < outcome.violation < math.inf


def test_times_that_say_nothing_of_a_target_are_not_its():
    goals = [Goal.LATENCY, Goal.COMPRESSED_BYTES]
    untimed = {"compressed_bytes": 500.0, "baseline_compressed_bytes": 1000.0, "source": "untimed"}
    measured = {"gateway": benchmark(0.1, 0.5), "micro": untimed}
    measured["board"] = benchmark(9.0, 0.5) | {"source": "unlike:x86_64-host"}
    facts = dict.fromkeys(measured, screened(5, 5, 1000))
    outcome = outcome_of(goals, measured, facts, 1000)
    assert outcome.values == pytest.approx({Goal.LATENCY: 0.1, Goal.COMPRESSED_BYTES: 0.5})
    alone = outcome_of(goals, {"micro": untimed}, {"micro": facts["micro"]}, 1000)
    assert set(alone.values) == {Goal.COMPRESSED_BYTES}


def test_multiplications_are_those_of_the_checkpoint():
    measured = {"micro": {"macs": 250, "baseline_macs": 1000}}
    outcome = outcome_of([Goal.MACS], measured, {"micro": screened(5, 5, 1000)}, 1000)
    assert outcome.values == {Goal.MACS: 0.25}


def test_what_does_not_fit_on_a_device_is_over_the_budget_and_says_by_how_much():
    too_big = {"micro": TooBig(0.5, "RAM: 6,000 bytes are 2,000 over the target's limit of 4,000")}
    outcome = outcome_of([Goal.MACS], {}, {}, 1000, too_big)
    assert outcome.values == {}
    assert outcome.violation == 0.5
    assert outcome.cause is not None
    assert "micro: RAM" in outcome.cause
    assert outcome_of([Goal.MACS], {}, {"other": screened(5, 5, 1000)}, 1000, too_big).violation == 0.5


def test_a_chain_that_no_target_answers_is_an_error():
    with pytest.raises(RecipeError, match="number format"):
        outcome_of([Goal.MACS], {}, {}, 1000)


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([500, 2000]))
def test_as_many_test_samples_as_validation_samples_give_the_bound_itself(lost, won, n):
    facts = screened(lost, won, n)
    upper = facts.main.upper
    assert upper is not None
    assert violation(facts, n) == pytest.approx(upper - BUDGET.max_accuracy_drop)


@given(st.integers(0, 20), st.integers(0, 20))
def test_more_test_samples_let_one_expect_more_and_fewer_less(lost, won):
    facts = screened(lost, won, 1000)
    assert violation(facts, 4000) < violation(facts, 1000) < violation(facts, 250)


def test_the_worst_target_counts():
    both = {"a": screened(0, 0, 2000), "b": screened(60, 0, 2000)}
    outcome = outcome_of([Goal.LATENCY], {"a": benchmark(0.5, 0.5)}, both, 2000)
    assert outcome.violation == violation(both["b"], 2000) > 0 > violation(both["a"], 2000)


def test_energy_without_any_figure_is_refused_by_name():
    with pytest.raises(RecipeError) as caught:
        require_energy({"energy_missing": "no sensor"}, "phone")
    assert "phone" in str(caught.value)
    assert "no sensor" in str(caught.value)


def test_energy_is_the_measured_one_where_there_is_one():
    measured = {"a": benchmark(0.5, 0.5) | {"energy_mj": 2.0, "energy_estimate_mj": 9.0, "baseline_energy_mj": 8.0}}
    outcome = outcome_of([Goal.ENERGY], measured, {"a": screened(0, 0, 1000)}, 1000)
    assert outcome.values[Goal.ENERGY] == pytest.approx(0.25)
