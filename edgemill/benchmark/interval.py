"""The ratio of two medians from interleaved blocks, with its bootstrap interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 500


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


def bootstrap_median(
    values: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Median with its two-sided percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).

    Whole rounds are drawn, so that what the runs of a round have in common stays together.

    Args:
        values: one number a round, (rounds,).
        confidence: two-sided, e.g. 0.95.
        resamples: number of bootstrap samples.
        seed: of this function's own generator.

    Returns:
        Median, lower end, upper end.
    """
    rng = np.random.default_rng(seed)
    medians = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = rng.integers(0, len(values), (count, len(values)))
        medians[start : start + count] = np.median(values[drawn], axis=1)
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(medians, [tail, 1 - tail])
    return float(np.median(values)), float(lower), float(upper)
