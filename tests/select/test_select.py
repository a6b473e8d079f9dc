"""Screening, Pareto front, order of the gate and the final choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.errors import InvariantError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Budget
from edgemill.select import Measured, choose, does_not_fit, gate_order, outcome, pareto_front, screen
from edgemill.summary import Interval, Profile
from edgemill.targets.spec import Limits
from edgemill.validate.decide import failed
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.verdict import Decision

BUDGET = Budget(max_accuracy_drop=0.01, confidence=0.95)


def profile(
    ratio: float | None = 0.4, packed: int = 500, *, source: str = "measured:native", **more: object
) -> Profile:
    interval = Interval(estimate=ratio, lower=0.97 * ratio, upper=1.03 * ratio) if ratio else None
    values = {
        "size_bytes": 2 * packed,
        "compressed_bytes": packed,
        "source": source,
        "latency_p50_ms": 0.2 * (ratio or 1),
        "latency_p95_ms": 0.25 * (ratio or 1),
        "latency_ratio": interval,
        "peak_rss_bytes": 1000,
    }
    return Profile.model_validate(values | more)


BASELINE = profile(None, 1000)


def measured(name: str, lost: int = 0, *, score: float | None = None, figures: Profile | None = None) -> Measured:
    variant = np.ones(2000)
    variant[:lost] = 0
    verdict = compare_binary(np.ones(2000), variant, BUDGET)
    return Measured(name, figures or profile(), verdict, verdict.upper, 0.95 - lost / 2000 if score is None else score)


figures_of_any_size = st.builds(profile, st.floats(0.05, 3), st.integers(1, 2000))
variants_strategy = st.lists(st.tuples(figures_of_any_size, st.floats(0.5, 1)), min_size=1, max_size=8).map(
    lambda rows: [measured(f"v{i}", figures=figures, score=score) for i, (figures, score) in enumerate(rows)]
)


def axes(variant: Measured) -> tuple[float, float, float]:
    return variant.profile.latency_ratio.estimate, variant.profile.compressed_bytes, -variant.score


def beats(a: Measured, b: Measured) -> bool:
    return axes(a) != axes(b) and all(x <= y for x, y in zip(axes(a), axes(b), strict=True))


@given(variants_strategy)
def test_front_is_what_nothing_beats(variants):
    front = pareto_front(variants)
    assert front
    for variant in variants:
        if variant in front:
            assert not any(beats(other, variant) for other in variants)
        else:
            assert any(beats(kept, variant) or axes(kept) == axes(variant) for kept in front)


@given(variants_strategy, st.randoms())
def test_order_of_candidates_does_not_matter(variants, random):
    shuffled = list(variants)
    random.shuffle(shuffled)
    assert pareto_front(shuffled) == pareto_front(variants)
    assert gate_order(shuffled) == gate_order(variants)
    assert choose(shuffled) == choose(variants)
    assert screen(shuffled, BASELINE)[0] == screen(variants, BASELINE)[0]


@given(variants_strategy)
def test_screen_accounts_for_every_variant(variants):
    kept, dropped = screen(variants, BASELINE)
    assert sorted([v.name for v in kept] + list(dropped)) == sorted(v.name for v in variants)
    assert all(dropped.values())


def test_clearly_worse_on_validation_data_is_dropped():
    kept, dropped = screen([measured("good", 3), measured("bad", 80, figures=profile(0.1, 100))], BASELINE)
    assert [v.name for v in kept] == ["good"]
    assert dropped["bad"].startswith("on validation data the drop is above")


def test_undecided_on_validation_data_is_kept():
    undecided = measured("maybe", 20)
    assert undecided.screen.verdict == "INCONCLUSIVE"
    assert screen([undecided], BASELINE)[0] == [undecided]


@pytest.mark.parametrize(
    ("figures", "kept"),
    [
        (profile(1.2, 1000), False),
        (profile(0.99, 1000), False),  # the interval reaches 1.02
        (profile(0.9, 1000), True),
        (profile(1.2, 900), True),
        (profile(1.2, 1000, peak_rss_bytes=900), True),
        (profile(1.2, 1000, peak_rss_bytes=None), False),
        (profile(None, 900, latency_p50_ms=None), False),
    ],
)
def test_what_is_not_better_is_dropped(figures, kept):
    left, dropped = screen([measured("v", figures=figures)], BASELINE)
    assert bool(left) == kept
    assert bool(dropped) != kept


def test_reasons_have_numbers():
    _, dropped = screen([measured("slow", figures=profile(1.2, 1000))], BASELINE)
    assert "1.200 (1.164 to 1.236)" in dropped["slow"]
    assert "2,000 against 2,000 bytes" in dropped["slow"]
    _, dropped = screen([measured("quiet", figures=profile(None, 900, latency_p50_ms=None))], BASELINE)
    assert "not measured" in dropped["quiet"]


@pytest.mark.parametrize(
    ("limits", "source", "word"),
    [
        (Limits(flash_bytes=999), "measured:native", "flash: 1,000 bytes"),
        (Limits(ram_bytes=999), "measured:native", "RAM: 1,000 bytes"),
        (Limits(latency_ms=0.05), "measured:native", "latency: 0.1 ms"),
        (Limits(latency_ms=5.0), "proxy:x86_64-host", "cannot be shown from proxy:x86_64-host"),
    ],
)
def test_limits_of_the_target(limits, source, word):
    _, dropped = screen([measured("v", figures=profile(0.4, 500, source=source))], BASELINE, limits)
    assert word in dropped["v"]
    roomy = Limits(flash_bytes=1000, ram_bytes=1000, latency_ms=0.2)
    assert screen([measured("v", figures=profile(0.4, 500))], BASELINE, roomy)[0]


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(), None),
        (Limits(flash_bytes=5_000, ram_bytes=2_000), None),
        (Limits(flash_bytes=4_000), "flash: 5,000 bytes are 1,000 over the target's limit of 4,000"),
        (Limits(ram_bytes=1_500_000), None),
        (Limits(ram_bytes=1_500), "RAM: 2,000 bytes are 500 over the target's limit of 1,500"),
    ],
)
def test_what_does_not_fit_says_by_how_much(limits, told):
    device = DeviceFigures(source="linked:gcc", flash_bytes=5_000, ram_bytes=2_000)
    assert does_not_fit(device, limits) == told
    assert does_not_fit(DeviceFigures(source="simulated:x"), limits) is None


def test_figures_of_the_devices_tools_count_before_those_of_this_machine():
    device = DeviceFigures(source="simulated:vela", latency_ms=0.1, flash_bytes=100, ram_bytes=50)
    times = {"latency_p50_ms": 0.1, "latency_p95_ms": None, "source": "simulated:vela"}
    figures = profile(None, 500, **times).model_copy(update={"device": device})
    fits = Limits(flash_bytes=100, ram_bytes=50, latency_ms=0.1)
    assert screen([measured("v", figures=figures)], BASELINE, fits)[0]
    _, dropped = screen([measured("v", figures=figures)], BASELINE, Limits(ram_bytes=49))
    assert "50 bytes are 1 over" in dropped["v"]


def test_without_any_time_the_smaller_file_is_kept():
    device = DeviceFigures(source="linked:gcc", flash_bytes=100, ram_bytes=50)
    figures = profile(None, 300, latency_p50_ms=None, source="untimed").model_copy(update={"device": device})
    assert [v.name for v in screen([measured("v", figures=figures)], BASELINE)[0]] == ["v"]


def test_dominated_variant_names_the_better_one():
    better, worse = measured("a", 2, figures=profile(0.3, 400)), measured("b", 2, figures=profile(0.35, 450))
    kept, dropped = screen([worse, better], BASELINE)
    assert kept == [better]
    assert dropped == {"b": "a is as fast, as small and as accurate on validation data"}


def test_times_that_say_nothing_neither_drop_nor_excuse():
    """On a host where int8 runs in another way, a slow int8 file is kept, and a fast big one has no merit."""
    source = "unlike:x86_64-host"
    slow = measured("int8", 2, figures=profile(8.0, 300, source=source))
    quick = measured("fp16", 0, figures=profile(0.5, 600, source=source))
    assert {v.name for v in screen([slow, quick], BASELINE)[0]} == {"int8", "fp16"}
    _, dropped = screen([slow, measured("worse", 3, figures=profile(0.5, 300, source=source))], BASELINE)
    assert dropped == {"worse": "int8 is as small and as accurate on validation data"}
    _, dropped = screen([measured("big", figures=profile(0.5, 1000, source=source))], BASELINE)
    assert "not better" in dropped["big"]


def test_gate_order_is_safest_first():
    broken = Measured("broken", profile(), failed(BUDGET, 0, "no samples"), None, 0.99)
    order = gate_order([broken, measured("risky", 15), measured("safe", 1), measured("middle", 6)])
    assert [v.name for v in order] == ["safe", "middle", "risky", "broken"]


def test_what_fails_a_further_check_on_validation_data_is_tested_last():
    flips = failed(BUDGET, 2000, "too many flips").model_copy(update={"verdict": Decision.INCONCLUSIVE})
    shaky = replace(measured("shaky", 0), screen=flips)
    assert [v.name for v in gate_order([shaky, measured("safe", 1)])] == ["safe", "shaky"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("measured:native", "fast"),
        ("simulated:vela", "fast"),
        ("proxy:x86_64-host", "middle"),  # within a quarter of the fastest, and smaller
        ("emulated:qemu", "small"),
        ("unlike:x86_64-host", "small"),
        ("estimated:power-envelope", "small"),
    ],
)
def test_choice_depends_on_what_the_times_are_worth(source, expected):
    passed = [
        measured("small", figures=profile(0.60, 100, source=source)),
        measured("fast", figures=profile(0.30, 500, source=source)),
        measured("middle", figures=profile(0.36, 300, source=source)),
    ]
    assert choose(passed).name == expected


def test_equally_fast_within_the_noise_smaller_wins():
    passed = [measured("fast", figures=profile(0.300, 500)), measured("small", figures=profile(0.305, 200))]
    assert choose(passed).name == "small"


def test_outcome():
    first, second = measured("a", 1, figures=profile(0.5)), measured("b", 2, figures=profile(0.2))
    third = measured("c", 80, figures=profile(0.1))
    verdicts = {v.name: v.screen for v in (first, second, third)}
    assert outcome([first, second, third], verdicts) == (second, [second, first])
    assert outcome([third], verdicts) == (None, [])
    assert choose([]) is None


def test_names_are_unique():
    with pytest.raises(InvariantError):
        screen([measured("a"), measured("a")], BASELINE)
