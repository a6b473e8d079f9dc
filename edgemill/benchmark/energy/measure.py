"""Joules per inference: pairs of idle and active windows, and the interval of their difference."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgemill.artifact import Frozen
from edgemill.benchmark.energy.meter import EnergyMeter
from edgemill.errors import ToolchainError

Report = Callable[[float | None, str], None]

_WINDOWS_PER_UPDATE = 10
_SETTLE_SHARE = 0.2
_FEWEST_PAIRS = 3


class Energy(Frozen):
    """What one inference costs beyond an idle device.

    Attributes:
        energy_mj: millijoules of one call, (active - idle), the mean over pairs of windows.
        energy_mj_lower: lower end of the interval; may be below 0 where noise drowns the model.
        energy_mj_upper: upper end.
        energy_confidence: of the interval, two-sided.
        energy_source: where the figure comes from (design rule 7).
        energy_meter: name of the meter.
        energy_scope: what the meter sees.
        idle_w: mean power of the idle windows, in watts.
        active_w: mean power of the active windows, in watts.
        energy_pairs: pairs of windows.
        energy_calls: calls in all active windows.
    """

    energy_mj: float
    energy_mj_lower: float
    energy_mj_upper: float
    energy_confidence: float
    energy_source: str
    energy_meter: str
    energy_scope: str
    idle_w: float
    active_w: float
    energy_pairs: int
    energy_calls: int


@dataclass(frozen=True)
class _Window:
    watts: float
    seconds: float
    calls: int


def measure_energy(
    call: Callable[[], Any],
    meter: EnergyMeter,
    *,
    pairs: int = 10,
    window_s: float = 1.0,
    confidence: float = 0.95,
    label: str | None = None,
    report: Report = lambda fraction, message: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Measure what a call costs beyond an idle device.

    Idle and active windows of equal length alternate, and which of the two comes first changes from pair
    to pair (A B, B A, ...), so that slow drift of the idle power, of temperature or of other load cancels
    within a pair and its sign between pairs. The first fifth of a window is not counted: there the device
    still changes from one state to the other. The interval is Student's, over the pairs' differences
    (paired design: Box, Hunter and Hunter, Statistics for Experimenters, 2nd ed., section 3.2).

    Args:
        call: one inference.
        meter: counts joules; is read at the ends of every window.
        pairs: pairs of windows, at least 3.
        window_s: seconds of a window; longer where the meter is slow (10 updates).
        confidence: two-sided.
        label: source of the figure; the meter's own by default.
        report: told of progress.
        clock: seconds.
        sleep: waits that many seconds, idle.

    Raises:
        ToolchainError: the meter cannot be read, or stands still.
        ValueError: fewer than 3 pairs.
    """
    if pairs < _FEWEST_PAIRS:
        raise ValueError(f"pairs must be at least {_FEWEST_PAIRS}")
    length = max(window_s, _WINDOWS_PER_UPDATE * meter.update_s)
    settle = _SETTLE_SHARE * length
    idle: list[_Window] = []
    active: list[_Window] = []
    steps: list[Callable[[], None]] = [
        lambda: idle.append(_idle(meter, settle, length - settle, clock, sleep)),
        lambda: active.append(_active(call, meter, settle, length - settle, clock)),
    ]
    meter.read()
    call()
    for index in range(pairs):
        for step in steps:
            step()
        steps.reverse()
        report((index + 1) / pairs, f"energy, pair {index + 1} of {pairs}")
    if all(window.watts == 0 for window in active):
        raise ToolchainError(
            "The energy meter stands still.",
            where=meter.name,
            expected="a counter that grows while the model runs",
            remedy="some virtual machines show counters that never move; measure on the machine itself",
        )
    differences = np.array(
        [(a.watts - i.watts) * a.seconds / a.calls * 1e3 for a, i in zip(active, idle, strict=True)], dtype=np.float64
    )
    lower, upper = t_interval(differences, confidence)
    return Energy(
        energy_mj=float(differences.mean()),
        energy_mj_lower=lower,
        energy_mj_upper=upper,
        energy_confidence=confidence,
        energy_source=label or meter.source,
        energy_meter=meter.name,
        energy_scope=meter.scope,
        idle_w=float(np.mean([window.watts for window in idle])),
        active_w=float(np.mean([window.watts for window in active])),
        energy_pairs=pairs,
        energy_calls=sum(window.calls for window in active),
    )


def t_interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Two-sided interval of the mean by Student's t.

    Args:
        values: (n,), n at least 2.
        confidence: e.g. 0.95.
    """
    half = float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def _idle(
    meter: EnergyMeter, settle: float, length: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> _Window:
    sleep(settle)
    start, joules = clock(), meter.read()
    sleep(length)
    spent, end = meter.read() - joules, clock()
    return _Window(spent / (end - start), end - start, 0)


def _active(
    call: Callable[[], Any], meter: EnergyMeter, settle: float, length: float, clock: Callable[[], float]
) -> _Window:
    begin = clock()
    while clock() - begin < settle:
        call()
    start, joules = clock(), meter.read()
    calls = 0
    while clock() - start < length:
        call()
        calls += 1
    spent, end = meter.read() - joules, clock()
    return _Window(spent / (end - start), end - start, calls)
