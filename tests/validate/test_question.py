"""From bounds to verdicts, and from several verdicts to one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.validate.question import POINTS, Question, first_size, needed_from_width
from edgemill.validate.verdict import Bound, Decision, GateFacts, combine

LOSS = Question("loss", "the loss", 0.02, 0.95, unit=POINTS)
FLOOR = Question("floor", "the virtue", 30.0, 0.95, Bound.ABOVE, "dB")


@pytest.mark.parametrize(
    ("question", "bounds", "expected"),
    [
        (LOSS, (-0.01, 0.019), Decision.PASS),
        (LOSS, (-0.01, 0.02), Decision.INCONCLUSIVE),
        (LOSS, (0.021, 0.03), Decision.FAIL),
        (FLOOR, (30.1, 31.0), Decision.PASS),
        (FLOOR, (30.0, 31.0), Decision.INCONCLUSIVE),
        (FLOOR, (10.0, 29.9), Decision.FAIL),
        (LOSS, (math.nan, math.nan), Decision.INCONCLUSIVE),
        (FLOOR, (math.nan, math.nan), Decision.INCONCLUSIVE),
    ],
)
def test_the_bound_on_the_right_side_decides(question, bounds, expected):
    assert question.decide(*bounds) is expected


@pytest.mark.parametrize("question", [LOSS, FLOOR])
@pytest.mark.parametrize("hole", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_never_decide(question, hole, value):
    numbers = [question.margin] * 3
    numbers[hole] = value
    verdict = question.answer(tuple(numbers), 50, "m")
    assert verdict.verdict is Decision.INCONCLUSIVE
    assert verdict.estimate is None


def test_reasons_name_the_side_the_unit_and_what_would_decide():
    assert LOSS.answer((0.0, -0.01, 0.01), 9, "m").reason == (
        "the loss is below 1 points at 95 % confidence, within the margin of 2 points"
    )
    assert "above 3 points at 95 % confidence, beyond the margin" in LOSS.answer((0.04, 0.03, 0.05), 9, "m").reason
    assert "above 31 dB at 95 % confidence, over the floor of 30 dB" in FLOOR.answer((32, 31, 33), 9, "m").reason
    assert "below 29 dB at 95 % confidence, under the floor of 30 dB" in FLOOR.answer((28, 27, 29), 9, "m").reason
    undecided = FLOOR.answer((31, 29, 33), 9, "m", 36)
    assert "the floor is 30 dB; about 36 samples would decide" in undecided.reason
    assert undecided.samples_needed == 36
    assert FLOOR.answer((32, 31, 33), 9, "m", 36).samples_needed is None
    assert LOSS.failed(9, "broken").verdict is Decision.FAIL


@given(st.floats(-1, 1), st.floats(0.001, 1), st.floats(0, 1), st.floats(-1, 1), st.integers(1, 10**6))
def test_samples_needed_bring_the_bound_to_the_margin(estimate, width, share, margin, n):
    own = width * share
    needed = needed_from_width(
        (estimate, estimate - width, estimate + width), margin, n, (estimate - own, estimate + own)
    )
    if needed is None:
        assert abs(margin - estimate) < width
        return
    assert needed > n
    if needed > n + 1:
        shrunk = own * math.sqrt(n / needed) + (width - own) * n / needed
        assert shrunk <= abs(margin - estimate) * (1 + 1e-6)


def test_samples_needed_of_bounds_that_are_pseudo_samples_alone():
    assert needed_from_width((0.0, -0.1, 0.1), 0.02, 1000, (0.0, 0.0)) == 5000
    assert needed_from_width((0.0, -0.1, 0.1), 0.02, 1000) == pytest.approx(25_000, abs=1)


@given(st.integers(1, 10**8))
def test_first_size_is_the_threshold(limit):
    assert first_size(lambda n: n >= limit) == limit


def test_first_size_gives_up():
    assert first_size(lambda n: False) is None


def verdicts(*decisions: Decision):
    numbers = {Decision.PASS: 0.0, Decision.INCONCLUSIVE: 0.02, Decision.FAIL: 0.5}
    return tuple(
        Question(f"gate{index}", "x", 0.02, 0.95).answer((numbers[d],) * 3, 10, "m")
        for index, d in enumerate(decisions)
    )


@pytest.mark.parametrize(
    ("decisions", "spokesman"),
    [("PP", 0), ("PFI", 1), ("PIF", 2), ("IPI", 0), ("PI", 1), ("FF", 0)],
)
def test_the_first_fail_else_the_first_undecided_speaks(decisions, spokesman):
    names = {"P": Decision.PASS, "I": Decision.INCONCLUSIVE, "F": Decision.FAIL}
    checks = verdicts(*(names[letter] for letter in decisions))
    assert combine(checks) is checks[spokesman]
    assert combine(checks).passed == (set(decisions) == {"P"})
    facts = GateFacts(verdict=combine(checks), checks=checks, baseline_accuracy=1.0)
    assert facts.main is checks[0]
