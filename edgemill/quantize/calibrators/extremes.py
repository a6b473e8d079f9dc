"""Running minimum and maximum of a stream of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""Lowest and highest value, in the unit of the tensor."""


class Extremes:
    """Smallest and largest of all values seen.

    Attributes:
        low: smallest value; +inf before the first.
        high: largest value; -inf before the first.
        size: number of values seen.
        finite: false once a value was NaN or infinite; `low` and `high` mean nothing then.
    """

    def __init__(self) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.size = 0
        self.finite = True

    def update(self, values: NDArray[Any]) -> None:
        """Take in floating-point values of any shape."""
        if not values.size:
            return
        low, high = float(np.min(values)), float(np.max(values))  # NaN where any value is
        self.finite = self.finite and math.isfinite(low) and math.isfinite(high)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.size += values.size

    def full_range(self) -> Range:
        """Every value seen, and 0."""
        return min(self.low, 0.0), max(self.high, 0.0)
