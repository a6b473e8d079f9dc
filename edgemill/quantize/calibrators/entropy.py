"""Range whose quantized values tell most about the real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.histogram import Histogram

_AROUND = 2
_BLOCK = 64
_DIGITS = 9


def entropy_range(histogram: Histogram, levels: int = 256) -> Range:
    """Range with the least Kullback-Leibler divergence of the quantized from the real distribution.

    Source: Migacz, "8-bit inference with TensorRT" (GTC 2017), the pages on entropy calibration. A
    candidate keeps the bins within a distance of 0 and clips what is outside. Its reference P is the
    kept counts, with the clipped ones added to the outermost bins; its candidate Q is the kept counts
    (without the clipped ones) summed over each quantized level and shared out equally among those bins of
    the level that P has. What is done otherwise than in onnxruntime's and MXNet's implementations:

    - Counts are whole numbers until P and Q are normalised to 1, each by its own sum.
    - Bins are spread evenly over the levels where they do not divide; there the last level gets the rest.
    - P > 0 where Q = 0 (clipped values in a level that is empty otherwise) is infinitely bad, as defined,
      and not smoothed away.
    - Signed values are quantized asymmetrically: the levels cover only bins that values reach.
    - Zeros do not count, for 0 is exact in every range, and neither do spikes; see `without_spikes`.

    Args:
        histogram: of all values; at least one.
        levels: quantized levels that the range is divided into: 256 for 8 bits with a zero point, 128 for
            never-negative values in symmetric int8.

    Returns:
        (lowest, highest); holds 0. All values where they reach no more than `levels` bins. The widest of equally
        good ones.
    """
    counts = without_spikes(histogram.nonzero_counts())
    zero = -histogram.first
    reach = np.arange(max(zero, len(counts) - zero), 0, -1)
    starts, stops = np.maximum(zero - reach, 0), np.minimum(zero + reach, len(counts))
    enough = stops - starts >= levels
    if not enough.any():
        return histogram.full_range()
    starts, stops = starts[enough], stops[enough]
    found = np.concatenate(
        [
            divergences(counts, starts[i : i + _BLOCK], stops[i : i + _BLOCK], levels)
            for i in range(0, len(starts), _BLOCK)
        ]
    )
    best = int(np.argmin(np.round(found, _DIGITS)))
    return histogram.limits(int(starts[best]), int(stops[best]))


def without_spikes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts, each no more than the median of the five around it, but at least 1 where there is any.

    A value that occurs again and again (what a convolution makes of a constant background) fills one bin
    or two. Rounding treats it like its neighbours, yet the divergence is least for the range that is so
    narrow that this bin has a level of its own: on a small residual network for Fashion-MNIST
    the first layer was clipped to a fifth of its range. NVIDIA's pytorch-quantization does the same for the
    first bin only, which takes the count of the second. The outermost bins stay, for a spike there is the
    bound of an activation function.

    Args:
        counts: (bins,).
    """
    padded = np.pad(counts, _AROUND, mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1)
    return np.minimum(counts, np.maximum(np.sort(around, axis=1)[:, _AROUND], 1))


def divergences(
    counts: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], levels: int
) -> NDArray[np.float64]:
    """KL(P || Q) in nats of the ranges [start, stop) of bins, (candidates,).

    With running sums of the counts, of the bins in use, and of c log c, each costs O(levels).

    Args:
        counts: (bins,).
        starts: first bin of each candidate, (candidates,).
        stops: bin after the last of each candidate; at least `levels` more than its start.
        levels: quantized levels.
    """
    below, in_use = _running(counts), _running((counts > 0).astype(np.int64))
    weight = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    first, last = counts[starts], counts[stops - 1]
    left, right = below[starts], below[-1] - below[stops]
    total, kept = below[-1], below[stops] - below[starts]

    cuts = starts[:, None] + np.arange(levels + 1) * (stops - starts)[:, None] // levels
    level = np.diff(below[cuts])
    bins = np.diff(in_use[cuts])
    bins[:, 0] += (first == 0) & (left > 0)
    bins[:, -1] += (last == 0) & (right > 0)
    reference = level.copy()
    reference[:, 0] += left
    reference[:, -1] += right

    own = weight[stops] - weight[starts]
    own += _xlogx(first + left) - _xlogx(first) + _xlogx(last + right) - _xlogx(last)
    crossed = (reference * np.log(np.maximum(level, 1) / np.maximum(bins, 1))).sum(axis=1)
    impossible = (kept == 0) | ((reference > 0) & (level == 0)).any(axis=1)
    divergence = (own - crossed) / max(total, 1) + np.log(np.maximum(kept, 1) / max(total, 1))
    return np.where(impossible, np.inf, divergence)


def _running(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _xlogx(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts.astype(np.float64) * np.log(np.maximum(counts, 1))
