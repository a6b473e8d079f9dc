"""Range with the least expected squared error of quantization."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.histogram import Histogram

_COARSE = 24
_FINER = 3
_ROUNDS = 3
# Bins narrower than this share of a bin width (the outermost ones end at the outermost value) are points.
_POINT = 1e-6


def least_squares_range(histogram: Histogram, levels: int = 256) -> Range:
    """Range with the least mean squared error between the values and their quantized ones.

    Both limits are searched for, each between 0 and the outermost value: on a grid of 1/24 of the range,
    then three times around the best on one three times finer. Clipping values and rounding them are weighed
    against each other as in Banner et al., "Post training 4-bit quantization of convolutional networks for
    rapid-deployment" (NeurIPS 2019, section 3), with the histogram in the place of their Laplace or Gauss
    distribution, and with an asymmetric grid.

    Args:
        histogram: of all values; at least one.
        levels: points of the grid; 256 for 8 bits.

    Returns:
        (lowest, highest); holds 0. The widest of equally good ones.
    """
    full_low, full_high = histogram.full_range()
    if full_low == full_high:
        return full_low, full_high
    error = Error(histogram, levels)

    def best_of(lows: set[float], highs: set[float]) -> tuple[float, float]:
        pairs = product(sorted(lows, reverse=True), sorted(highs, reverse=True))
        candidates = [(low, high) for low, high in pairs if low * full_low < high * full_high]
        errors = [error.total(low * full_low, high * full_high) for low, high in candidates]
        return candidates[int(np.argmin(errors))]

    # A side without values stays at its end.
    grid = {step / _COARSE for step in range(_COARSE + 1)}
    low, high = best_of(grid if full_low else {1.0}, grid if full_high else {1.0})
    step = 1.0 / _COARSE
    for _ in range(_ROUNDS):
        near = np.arange(-_FINER, _FINER + 1) * step / _FINER
        step /= _FINER
        low, high = best_of(
            {float(np.clip(low + by, 0, 1)) for by in near} if full_low else {1.0},
            {float(np.clip(high + by, 0, 1)) for by in near} if full_high else {1.0},
        )
    return low * full_low, high * full_high


class Error:
    """Mean squared quantization error of the values of a histogram, for one range after another.

    Within a bin the values are taken as spread evenly, and the squared error is integrated over it exactly;
    values that are exactly 0 have no error. Everything is in bin widths.
    """

    def __init__(self, histogram: Histogram, levels: int) -> None:
        counts = histogram.nonzero_counts()
        low, high = histogram.full_range()
        self._width = histogram.width
        self._levels = levels
        self._size = histogram.size
        edges = np.arange(histogram.first, histogram.first + len(counts) + 1, dtype=np.float64)
        # No value lies beyond the outermost ones.
        self._edges = np.clip(edges, low / self._width, high / self._width)
        spans = np.diff(self._edges)
        points = spans < _POINT
        self._density = np.where(points, 0.0, counts / np.where(points, 1.0, spans))
        held = np.flatnonzero(points & (counts > 0))
        self._points, self._weights = self._edges[held], counts[held]

    def total(self, low: float, high: float) -> float:
        """Mean squared error, in the squared unit of the values, when quantized in a range.

        The grid is that of onnxruntime: `levels` points, with 0 rounded to one of them.

        Args:
            low: at most 0.
            high: at least 0, and above `low`.
        """
        low, high = low / self._width, high / self._width
        step = (high - low) / (self._levels - 1)
        zero = np.rint(-low / step)
        bottom, top = -zero * step, (self._levels - 1 - zero) * step
        within = np.diff(_integral(self._edges, bottom, top, step)) @ self._density
        at = np.clip(self._points, bottom, top)
        missed = self._points - np.rint(at / step) * step
        return float((within + missed**2 @ self._weights) / self._size * self._width**2)


def _integral(x: NDArray[np.float64], bottom: float, top: float, step: float) -> NDArray[np.float64]:
    """Integral of the squared error from 0 to x."""
    kept = np.clip(x, bottom, top)
    units = kept / step
    whole = np.rint(units)
    # step**3 / 12 for every whole grid interval, a cube for the rest, a cube for what is clipped.
    result: NDArray[np.float64] = step**3 * (whole / 12 + (units - whole) ** 3 / 3) + (x - kept) ** 3 / 3
    return result
