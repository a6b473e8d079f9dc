"""When a sustained run became slower for good, and whether heat was the cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import ruptures
from numpy.typing import NDArray

from edgemill.artifact import Frozen

RISE = 0.10
"""Share by which latency must rise, and stay risen, to count."""

PENALTY = 3.0
"""Penalty of one more change, in units of noise variance times the logarithm of the number of points."""

CLOCK_FALL = 0.02
"""Share by which the clock must be lower after the onset to be evidence."""

WARMING_C = 1.0
"""Degrees by which the processor must be warmer after the onset to be evidence."""

_MOST_POINTS = 2000
_SHORTEST = 10
_NEIGHBOURS = 3
_OUTLIER = 3.0
_FEWEST = 2 * _SHORTEST
_NORMAL_MAD = 1.4826


class Slowdown(Frozen):
    """A lasting rise of latency.

    Attributes:
        onset_s: seconds from the start of the run.
        before_ms: median latency of the fastest stretch before.
        after_ms: median latency from there to the end.
    """

    onset_s: float
    before_ms: float
    after_ms: float

    @property
    def rise(self) -> float:
        """Share by which latency rose."""
        return self.after_ms / self.before_ms - 1


class Throttle(Frozen):
    """Whether heat slowed the run down.

    Attributes:
        throttle_onset_s: None where nothing lasting happened, or where what can be read speaks against heat.
        throttle_evidence: what speaks for and against heat, in words, one entry a sensor; empty without a slowdown.
        slowdown: the lasting rise of latency itself, whatever its cause.
    """

    throttle_onset_s: float | None
    throttle_evidence: tuple[str, ...]
    slowdown: Slowdown | None


def find_throttle(
    seconds: Sequence[float] | NDArray[np.float64],
    latency_ms: Sequence[float] | NDArray[np.float64],
    temperature_c: Sequence[float] | NDArray[np.float64],
    mhz: Sequence[float] | NDArray[np.float64],
    taken: Sequence[float] | NDArray[np.float64],
) -> Throttle:
    """Look for the onset of throttling.

    Args:
        seconds: start of every window, (n,), ascending.
        latency_ms: median latency of every window, (n,).
        temperature_c: at the end of every window, (n,), NaN where it could not be read.
        mhz: as `temperature_c`, the clock.
        taken: share of every window in which something else had the cores, NaN where the system does not tell.

    Returns:
        An onset where latency rose for good and the clock fell or the temperature rose with it. Where
        neither can be read, an onset too, unless other load explains half of the rise.
    """
    slowdown = find_slowdown(seconds, latency_ms)
    if slowdown is None:
        return Throttle(throttle_onset_s=None, throttle_evidence=(), slowdown=None)
    after = np.asarray(seconds, np.float64) >= slowdown.onset_s
    seen = [
        judgement
        for judgement in (
            _clock(_around(np.asarray(mhz, np.float64), after)),
            _warmth(_around(np.asarray(temperature_c, np.float64), after)),
        )
        if judgement is not None
    ] or [_unseen(_around(np.asarray(taken, np.float64), after), slowdown.rise)]
    return Throttle(
        throttle_onset_s=slowdown.onset_s if any(speaks_for for speaks_for, _ in seen) else None,
        throttle_evidence=tuple(words for _, words in seen),
        slowdown=slowdown,
    )


def _clock(around: tuple[float, float] | None) -> tuple[bool, str] | None:
    if around is None:
        return None
    fast, slow = around
    if slow <= (1 - CLOCK_FALL) * fast:
        return True, f"the clock fell from {fast:.0f} to {slow:.0f} MHz"
    return False, f"the clock did not fall: {fast:.0f} MHz before, {slow:.0f} MHz after"


def _warmth(around: tuple[float, float] | None) -> tuple[bool, str] | None:
    if around is None:
        return None
    cool, hot = around
    if hot >= cool + WARMING_C:
        return True, f"the processor warmed from {cool:.1f} to {hot:.1f} °C"
    return False, f"the processor did not warm: {cool:.1f} °C before, {hot:.1f} °C after"


def _unseen(around: tuple[float, float] | None, rise: float) -> tuple[bool, str]:
    """Without clock and temperature: only other load can be ruled in or out."""
    if around is None:
        return True, "latency alone: clock, temperature and other load cannot be read here"
    before, after = around
    words = f"other programs took {before:.1%} of the time before and {after:.1%} after"
    if after - before >= rise / 2:
        return False, f"neither clock nor temperature can be read here, and {words}"
    return True, f"latency alone: neither clock nor temperature can be read here; {words}"


def _around(values: NDArray[np.float64], after: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Medians before and after, of known values; None where one side has none."""
    known = ~np.isnan(values)
    if not (known & ~after).any() or not (known & after).any():
        return None
    return float(np.median(values[known & ~after])), float(np.median(values[known & after]))


def find_slowdown(
    seconds: Sequence[float] | NDArray[np.float64], latency_ms: Sequence[float] | NDArray[np.float64]
) -> Slowdown | None:
    """Find the first change after which latency stays at least `RISE` above the fastest stretch before it.

    Changes of the mean of the logarithm of latency are found with PELT (Killick, Fearnhead and Eckley,
    JASA 107, 2012), squared-error cost, penalty `PENALTY` * variance * log(n); the variance is that of the
    differences of neighbours, by their median absolute deviation, so that changes do not inflate it.
    Single outliers are replaced by the median of their neighbours before (Hampel filter, width 7, 3 sigma);
    a stretch has at least 10 windows.
    Runs of more than 2,000 windows are first reduced to as many medians. A change counts when the stretch that begins
    there and the median of all that follows are both `RISE` above the fastest stretch before.

    Args:
        seconds: start of every window, (n,), ascending.
        latency_ms: median latency of every window, (n,), positive.
    """
    step = max(1, math.ceil(len(latency_ms) / _MOST_POINTS))
    times = np.asarray(seconds, np.float64)[::step]
    values = np.asarray(latency_ms, np.float64)
    points = np.array([np.median(values[start : start + step]) for start in range(0, len(values), step)])
    if len(points) < _FEWEST:
        return None
    ends = _segment_ends(np.log(points))
    starts = [0, *ends[:-1]]
    levels = [float(np.median(points[start:end])) for start, end in zip(starts, ends, strict=True)]
    for index in range(1, len(starts)):
        before = min(levels[:index])
        after = float(np.median(points[starts[index] :]))
        if min(levels[index], after) >= (1 + RISE) * before:
            return Slowdown(onset_s=float(times[starts[index]]), before_ms=before, after_ms=after)
    return None


def _segment_ends(signal: NDArray[np.float64]) -> list[int]:
    noise = _NORMAL_MAD * float(np.median(np.abs(np.diff(signal)))) / math.sqrt(2)
    # A signal without noise, e.g. of a coarse clock: any change is one.
    variance = max(noise**2, 1e-8)
    cleaned = _without_outliers(signal, _OUTLIER * math.sqrt(variance))
    # The linear kernel's cost is the squared error, and its search is PELT in C.
    search = ruptures.KernelCPD(kernel="linear", min_size=_SHORTEST).fit(cleaned.reshape(-1, 1))
    ends: list[int] = search.predict(pen=PENALTY * variance * math.log(len(signal)))
    return ends


def _without_outliers(signal: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    padded = np.pad(signal, _NEIGHBOURS, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1), axis=1)
    return np.where(np.abs(signal - medians) > limit, medians, signal)
