"""Range that leaves out a given share of the values."""

from __future__ import annotations

import math

import numpy as np

from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.histogram import Histogram


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """Range that holds `percentile` % of the values; half of the others lie on either side.

    Of n values the floor(n (100 - percentile) / 200) smallest and as many largest are left out, and the
    limits are those of the bins of the outermost values kept: at most one bin width outside the exact
    percentile, never inside it. Zeros count as values.

    Args:
        histogram: of all values; at least one.
        percentile: above 0, at most 100; 100 is the full range.

    Returns:
        (lowest, highest); holds 0.
    """
    left_out = math.floor(histogram.size * (100.0 - percentile) / 200.0 + 1e-9)
    below = np.cumsum(histogram.counts)
    start = int(np.searchsorted(below, left_out, side="right"))
    stop = int(np.searchsorted(below, histogram.size - left_out, side="left")) + 1
    low, high = histogram.limits(start, stop)
    return min(low, 0.0), max(high, 0.0)
