"""The ratio of two latencies from interleaved blocks, with an interval that holds under other load."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BATCHES = 8
"""Consecutive parts of a run whose medians are compared with each other."""

REPRODUCIBILITY = 0.01
"""Share of a ratio by which two runs on one machine may differ beyond what either shows within itself.

Other load that lasts as long as a run (a busy second core, its share of caches and memory) shifts the
ratio itself: on W1 idle runs gave 0.420 to 0.423 and runs beside steady load 0.426 to 0.433. A run
cannot see this in its own scatter, so it is added to its interval as a component known from elsewhere
(type B, GUM: JCGM 100:2008, section 4.3). `python -m benchmarks.steady_ratio` checks the figure.
"""

METHOD = (
    f"mean of {BATCHES} batch medians; Student interval, corrected for autocorrelation, "
    f"plus {REPRODUCIBILITY:.0%} for other load"
)

_CORRELATION_LIMIT = 0.8
_STEPS = 200


class Estimate(NamedTuple):
    """A number with its two-sided interval."""

    value: float
    lower: float
    upper: float

    def reproducible(self) -> Estimate:
        """Widened to each side by `REPRODUCIBILITY` of the value, so that another run's interval meets it."""
        more = REPRODUCIBILITY * abs(self.value)
        return Estimate(self.value, self.lower - more, self.upper + more)

    def is_within(self, precision: float) -> bool:
        """Whether half of the interval's width is at most this share of the value."""
        return (self.upper - self.lower) / 2 <= precision * self.value


def round_ratios(variant: NDArray[np.float64], baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratio of the medians of each round.

    Args:
        variant: times, (rounds, runs), any unit.
        baseline: times of the same rounds, (rounds, runs).

    Returns:
        float64 (rounds,); below 1 where the variant is faster. Both blocks of a round run directly
        after each other, so that what else the machine does cancels.
    """
    ratios: NDArray[np.float64] = np.median(variant, axis=1) / np.median(baseline, axis=1)
    return ratios


def typical(values: NDArray[np.float64], confidence: float) -> Estimate:
    """Typical value of a time series of positive numbers, with an interval that expects neighbours to be alike.

    Other load lasts, so rounds that follow each other err to the same side, and an interval that takes
    them as independent is too narrow. Here the series is cut into `BATCHES` consecutive batches of
    nearly equal length. Within a batch the median is taken, which single bad rounds do not move; the
    estimate is the mean of the batch medians, because the median of a run that was half disturbed
    jumps between two values. As long as the disturbances are short against a batch, the batch medians
    are nearly independent and nearly normal, and Student's interval with BATCHES - 1 degrees of
    freedom holds (method of batch means: Law and Kelton, Simulation Modeling and Analysis, section
    9.5). What correlation is left is estimated at lag 1, its bias of -1/BATCHES taken back, and
    widens the interval by sqrt((1 + r) / (1 - r)), as in Skart (Tafazzoli and Wilson 2011, IIE
    Transactions 43). Logarithms are taken, so that a ratio and its inverse get the same interval.

    A bootstrap of moving blocks (Kuensch 1989) of automatic length covered less on the same simulated
    series: with 95 % wanted, 79 % instead of 93 % at 30 rounds of an AR(1) series with r = 0.6, 76 %
    instead of 89 % at 100 rounds with r = 0.9. No interval sees what changes more slowly than the
    run lasts.

    Args:
        values: one positive number a round, in order of time, (rounds,).
        confidence: two-sided, e.g. 0.95.

    Returns:
        Estimate and interval; below `BATCHES` rounds the median, infinitely wide.
    """
    logs = np.log(values)
    if len(logs) < BATCHES:
        return Estimate(math.exp(float(np.median(logs))), 0.0, math.inf)
    medians = np.array([np.median(part) for part in np.array_split(logs, BATCHES)])
    centre = float(medians.mean())
    off = medians - centre
    total = float(off @ off)
    correlation = float(off[1:] @ off[:-1]) / total + 1 / BATCHES if total > 0 else 0.0
    correlation = min(max(correlation, 0.0), _CORRELATION_LIMIT)
    variance = total / (BATCHES - 1) / BATCHES * (1 + correlation) / (1 - correlation)
    half = student_quantile((1 + confidence) / 2, BATCHES - 1) * math.sqrt(variance)
    return Estimate(*(math.exp(centre + shift) for shift in (0.0, -half, half)))


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution for an odd number of degrees of freedom.

    Bisection of the closed form of the distribution function (Abramowitz and Stegun, 26.7.3); scipy
    would cost every measurement 0.4 s of import.

    Args:
        probability: from 0.5 to below 1.
        degrees: degrees of freedom; odd.
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t / sqrt(degrees)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if 0.5 + _central_half(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _central_half(angle: float, degrees: int) -> float:
    """Probability of 0 to t, with t = sqrt(degrees) * tan(angle)."""
    total, term = 0.0, math.cos(angle)
    for power in range(1, degrees - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return (angle + math.sin(angle) * total) / math.pi
