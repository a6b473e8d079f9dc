"""How long a comparison goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark.interval import BATCHES, typical
from edgemill.recipe import Benchmark

Stopped = Literal["precise", "time budget"]

_GROWTH = 1.5
_SITTINGS_PER_LOOK = 4


def until_precise(
    sit: Callable[[int], NDArray[np.float64]],
    rule: Benchmark,
    confidence: float,
    out_of_time: Callable[[], bool],
) -> Stopped:
    """Measure until the interval of the ratio is narrow enough, or there is no time left.

    The run is made of sittings, in each of which both models are loaded anew: where their weights
    and buffers come to lie changes a latency by as much as the noise does (Kalibera and Jones 2013,
    Rigorous benchmarking in reasonable time), and one loading would hide that. The first `BATCHES`
    sittings make up the recipe's minimum of rounds.

    Whoever looks at an interval after every round and stops at the first narrow one stops too often
    when it is narrow by chance. So it is looked at seldom, when the run has become longer by half
    (each time in 4 sittings), about 6 times between the minimum and ten times as much. What decides
    is the width alone, never where the interval lies; fixed-width stopping of this kind keeps the
    coverage as the width falls (Chow and Robbins 1965), and at these sizes the simulations in
    tests/benchmark/test_interval.py show what is lost. The time budget says nothing of the outcome.

    Args:
        sit: measures a sitting of so many rounds (fewer where the time ends) and returns the ratios
            of all undisturbed rounds so far, in order of time.
        rule: minimum of rounds, which disturbed ones do not count towards, and precision.
        confidence: of the interval.
        out_of_time: whether the time budget is spent.
    """
    length = math.ceil(rule.rounds / BATCHES)
    for _ in range(BATCHES):
        ratios = sit(length)
    measured = BATCHES * length
    while True:
        if len(ratios) >= rule.rounds and typical(ratios, confidence).is_within(rule.precision):
            return "precise"
        length = math.ceil((_GROWTH - 1) * measured / _SITTINGS_PER_LOOK)
        for _ in range(_SITTINGS_PER_LOOK):
            if out_of_time():
                return "time budget"
            ratios = sit(length)
            measured += length
