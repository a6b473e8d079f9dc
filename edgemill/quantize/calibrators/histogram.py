"""A histogram of a stream of values, of fixed size, whose range grows with the values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.calibrators.extremes import Extremes, Range

BINS = 2048
"""As in Migacz, "8-bit inference with TensorRT" (GTC 2017), and in every calibrator since."""

_PIECE = 1 << 16
# Exponents of the bin width for which float32 values are scaled without rounding: multiplying by
# 2**-exponent >= 1 loses no denormal, and the factor itself is a float32.
_EXACT_IN_FLOAT32 = range(-126, 1)


class Histogram(Extremes):
    """Counts of values in at most `bins` bins of equal width.

    The width is a power of two and every edge a whole multiple of it, so 0 is always an edge. When
    the values outgrow the bins, neighbours are merged: the width doubles, each count goes whole into
    one of the wider bins, and nothing is interpolated. (PyTorch's HistogramObserver and
    onnxruntime's HistogramCollector spread or re-cut counts when the range grows.) The width
    is the smallest one with which all values and 0 fit, so the histogram of a set of values is the same
    in whatever order and batches they came.

    Attributes:
        bins: number of bins.
        counts: values in each bin, int64 (bins,); bin i holds [edges[i], edges[i + 1]).
        zeros: values that are exactly 0; they are counted in `counts`, too.
        exponent: log2 of the bin width; None while every value was 0.
        first: lower edge of the first bin, in bin widths; at most 0.
    """

    def __init__(self, bins: int = BINS) -> None:
        super().__init__()
        if bins < 2:
            raise ValueError(f"a histogram has at least 2 bins, not {bins}")
        self.bins = bins
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)
        self.zeros = 0
        self.exponent: int | None = None
        self.first = 0

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of the values; 1 while every value was 0."""
        return math.ldexp(1.0, self.exponent or 0)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, (bins + 1,)."""
        return np.arange(self.first, self.first + self.bins + 1, dtype=np.float64) * np.float64(self.width)

    @property
    def used(self) -> int:
        """Number of bins up to the last one that the values or 0 reach."""
        return math.floor(max(self.high, 0.0) / self.width) - self.first + 1 if self.size else 1

    def nonzero_counts(self) -> NDArray[np.int64]:
        """Counts of the used bins without the values that are exactly 0, which every grid holds, (used,)."""
        counts = self.counts[: self.used].copy()
        counts[-self.first] -= self.zeros
        return counts

    def limits(self, start: int, stop: int) -> Range:
        """Range of the bins [start, stop), not beyond the values seen; holds 0 if the bins do."""
        low, high = self.full_range()
        return max((self.first + start) * self.width, low), min((self.first + stop) * self.width, high)

    def update(self, values: NDArray[Any]) -> None:
        """Take in floating-point values of any shape."""
        super().update(values)
        if not self.finite or not values.size:
            return
        self._grow()
        flat = values.reshape(-1)
        self.zeros += flat.size - int(np.count_nonzero(flat))
        if self.exponent is None:
            self.counts[0] += flat.size
            return
        for start in range(0, flat.size, _PIECE):  # a piece and what is made of it stay in the cache
            index = self._index(flat[start : start + _PIECE], self.exponent)
            self.counts += np.bincount(index, minlength=self.bins)

    def _index(self, values: NDArray[Any], exponent: int) -> NDArray[np.intp]:
        kind = np.float64 if values.dtype == np.float64 or exponent not in _EXACT_IN_FLOAT32 else np.float32
        scaled: NDArray[Any] = np.multiply(values, kind(math.ldexp(1.0, -exponent)), dtype=kind)
        np.floor(scaled, out=scaled)
        scaled -= self.first
        index: NDArray[np.intp] = scaled.astype(np.intp)
        return index

    def _grow(self) -> None:
        low, high = self.full_range()
        if low == high == 0.0:
            return
        exponent = _exponent(low, high, self.bins)
        first = math.floor(math.ldexp(low, -exponent))
        if (exponent, first) == (self.exponent, self.first):
            return
        held = np.flatnonzero(self.counts)
        steps = 0 if self.exponent is None else exponent - self.exponent
        merged = np.zeros(self.bins, np.int64)
        np.add.at(merged, ((held + self.first) >> min(steps, 62)) - first, self.counts[held])
        self.counts, self.exponent, self.first = merged, exponent, first


def _exponent(low: float, high: float, bins: int) -> int:
    """Smallest e so that bins of width 2**e with 0 on an edge hold both limits."""
    # With this one the farther limit alone takes too many bins.
    exponent = math.frexp(max(-low, high))[1] - math.ceil(math.log2(bins)) - 1
    while math.floor(math.ldexp(high, -exponent)) - math.floor(math.ldexp(low, -exponent)) >= bins:
        exponent += 1
    return exponent
