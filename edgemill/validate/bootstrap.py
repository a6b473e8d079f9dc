"""Bootstrap over samples of any statistic that is a function of sums over samples.

Resampling whole samples keeps the pairing of baseline and variant: both answers to a sample stay
together. Writing a statistic as a function of sums lets thousands of resamples, and the jackknife,
be matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

MIN_SAMPLES = 30
"""Below this a bootstrap promises too much; a check stays INCONCLUSIVE."""

BCA_LIMIT = 2000

_CHUNK_ELEMENTS = 2_000_000

Statistic = Callable[[NDArray[np.float64], float], NDArray[np.float64]]
"""`statistic(sums, n)`: sums float64 (r, m) over n samples each -> values (r,)."""


@dataclass(frozen=True)
class Bounds:
    """One-sided bounds of a statistic; infinite where some resample had no finite value."""

    estimate: float
    lower: float
    upper: float
    method: str

    @property
    def numbers(self) -> tuple[float, float, float]:
        """Estimate, lower and upper bound."""
        return self.estimate, self.lower, self.upper


def bootstrap_sums(
    features: Any, statistic: Statistic, confidence: float, seed: int, resamples: int, *, corrected: bool = True
) -> Bounds:
    """Bounds of `statistic(column sums of features, N)`.

    Bias-corrected and accelerated (Efron 1987, JASA 82:171-185) up to 2000 samples, percentile above.

    Args:
        features: (N, m), one row a sample; dense float64 or a scipy sparse array.
        statistic: see `Statistic`.
        confidence: one-sided, of each bound.
        seed: of the resampling.
        resamples: of the bootstrap.
        corrected: False for the percentile interval at any size.
    """
    n = features.shape[0]
    total = np.asarray(features.sum(axis=0), dtype=np.float64).reshape(1, -1)
    estimate = float(statistic(total, n)[0])
    turned = sparse.csr_array(features.T) if sparse.issparse(features) else None
    drawn = _weights(n, resamples, np.random.default_rng(seed))
    values = np.concatenate(
        [statistic(weights @ features if turned is None else (turned @ weights.T).T, n) for weights in drawn]
    )
    left_out = None
    if corrected and n <= BCA_LIMIT:
        step = max(1, _CHUNK_ELEMENTS // max(1, features.shape[1]))
        left_out = np.concatenate(
            [statistic(total - _dense(features[start : start + step]), n - 1) for start in range(0, n, step)]
        )
    return bounds_of(estimate, values, left_out, confidence)


def bounds_of(
    estimate: float, values: NDArray[np.float64], left_out: NDArray[np.float64] | None, confidence: float
) -> Bounds:
    """Bounds from the values of a statistic in resamples.

    Args:
        estimate: its value on the whole sample.
        values: (resamples,); one that is not finite counts as infinitely bad on either side.
        left_out: its values with one sample (or group of samples) left out, for the acceleration of
            BCa; None for the percentile interval.
        confidence: one-sided, of each bound.
    """
    method = "percentile bootstrap" if left_out is None else "BCa bootstrap"
    finite = np.isfinite(values)
    if finite.all() and np.ptp(values) == 0:
        return Bounds(estimate, float(values[0]), float(values[0]), method)
    tails = (1 - confidence, confidence)
    if left_out is not None and np.isfinite(left_out).all():
        tails = _bca_tails(estimate, values, left_out, confidence)
    lower = np.quantile(np.where(finite, values, -np.inf), tails[0], method="inverted_cdf")
    upper = np.quantile(np.where(finite, values, np.inf), tails[1], method="inverted_cdf")
    return Bounds(estimate, float(lower), float(upper), method)


def _bca_tails(
    estimate: float, values: NDArray[np.float64], left_out: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    share = float(np.mean(values < estimate) + np.mean(values == estimate) / 2)
    # At 0 or 1 the correction is infinite: the whole distribution lies on one side.
    share = min(max(share, 0.5 / len(values)), 1 - 0.5 / len(values))
    bias = float(stats.norm.ppf(share))
    spread = left_out.mean() - left_out
    cubes, squares = float((spread**3).sum()), float((spread**2).sum())
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0

    def tail(z: float) -> float:
        shift = bias + z
        room = 1 - acceleration * shift
        if room <= 0:
            return 1.0 if shift > 0 else 0.0
        return float(stats.norm.cdf(bias + shift / room))

    z = float(stats.norm.ppf(confidence))
    return tail(-z), tail(z)


def _weights(n: int, resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """How often every sample is drawn, (r, N), a block of resamples at a time."""
    rows = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, resamples, rows):
        block = np.empty((min(rows, resamples - start), n))
        for row in block:
            row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
        yield block


def _dense(rows: Any) -> NDArray[np.float64]:
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)
