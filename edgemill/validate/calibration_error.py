"""Expected calibration error: do predicted probabilities mean what they say?"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgemill.validate.bootstrap import bootstrap_sums
from edgemill.validate.pair import Checked, Pair
from edgemill.validate.probabilities import probabilities
from edgemill.validate.question import Question, needed_from_width
from edgemill.validate.unseen import UNSEEN, allow_unseen

MIN_OF_A_BIN = 10
METHOD = f"expected calibration error, {{}} equal-mass bins, bounded baseline, paired percentile bootstrap, {UNSEEN}"

_SHARE_OF_D = 0.1
_MULTIPLIERS = (0.02, 50.0, 24)


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.float64], bins: int) -> float:
    """Mean over the samples of |share right - mean confidence| of their bin.

    Args:
        confidence: (N,), probability of the answer.
        right: (N,), 1 where the answer is right, else 0.
        bins: of equal mass; samples of the same confidence stay together, so there may be fewer.
    """
    places = equal_mass_bins(confidence, bins)
    return float(np.abs(np.bincount(places, confidence - right)).sum() / len(confidence))


def equal_mass_bins(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Bin of every sample, (N,), between the quantiles of the confidence."""
    edges = np.unique(np.quantile(confidence, np.arange(1, bins) / bins))
    return np.asarray(np.searchsorted(edges, confidence, side="right"), dtype=np.int64)


def check_calibration_error(question: Question, pair: Pair, bins: int) -> Checked:
    """Bounds of ECE(variant) - ECE(baseline), both in the bins of the variant's confidence.

    With D the baseline's mean gap of confidence and share right in a bin (times the bin's mass), and
    d the change of that gap, the rise is the sum of |D + d| - |D| over the bins. The mean of |D| over
    few samples is far above 0 for a perfectly calibrated model too, so that simply comparing both
    errors, resampled or not, hides a rise of the size of this bias. Instead:

    1. D is taken to be anywhere in a confidence ellipsoid around its estimate, which errs with a tenth
       of the probability that the check may err; the rise is the largest (smallest) for such D.
    2. d is paired, hence known well: the bound is a percentile of 1. over a bootstrap of samples.
    3. `allow_unseen` counts samples lost (won) with full confidence.
    """
    needed = MIN_OF_A_BIN * bins
    if pair.n < needed:
        return Checked(question.too_few(pair.n, needed))
    confidences = [probabilities(outputs, pair.baseline).max(axis=1) for outputs in (pair.baseline, pair.variant)]
    places = equal_mass_bins(confidences[1], bins)
    usual, ours = np.stack(confidences) - pair.scores
    gaps, changes = (_columns(values, places, bins) for values in (usual, ours - usual))
    spent = (1 - question.confidence) * _SHARE_OF_D
    middle = gaps.sum(axis=0) / pair.n
    # One sample more in each: a bin without any error has a spread too.
    error = (np.sqrt((gaps**2).sum(axis=0)) + 1) / pair.n
    radius = math.sqrt(float(stats.chi2.ppf(1 - spent, bins)))
    estimate = float(_rise(middle, changes.sum(axis=0) / pair.n))

    def bound(sign: int) -> float:
        """Upper bound of sign * rise."""
        extreme = partial(_extreme_rise, middle=middle, error=error, radius=radius, sign=sign)
        spread = question.confidence + spent
        return bootstrap_sums(changes, extreme, spread, pair.seed, pair.resamples, corrected=False).upper

    plain = estimate, -bound(-1), bound(1)
    numbers = allow_unseen(plain, (1 / pair.n, 1 / pair.n), question.confidence)
    wanted = needed_from_width(numbers, question.margin, pair.n, plain[1:])
    return Checked(question.answer(numbers, pair.n, METHOD.format(bins), wanted))


def _columns(values: NDArray[np.float64], places: NDArray[np.int64], bins: int) -> NDArray[np.float64]:
    """(N, bins): the value in the column of the sample's bin, 0 elsewhere."""
    table = np.zeros((len(values), bins))
    table[np.arange(len(values)), places] = values
    return table


def _rise(gap: NDArray[np.float64], change: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((np.abs(gap + change) - np.abs(gap)).sum(axis=-1))


def _extreme_rise(
    sums: NDArray[np.float64],
    n: float,
    middle: NDArray[np.float64],
    error: NDArray[np.float64],
    radius: float,
    sign: int,
) -> NDArray[np.float64]:
    """Largest rise (sign 1) or fall (-1) for gaps D of the baseline with sum(((D - middle) / error)^2) <= radius^2.

    Bounded from above by Lagrange duality: for every m >= 0 it is at most m radius^2 plus the sum over
    the bins of the largest |D + d| - |D| - m ((D - middle) / error)^2, each of which is at one of three
    places, as |D + d| - |D| has two corners.
    """
    change = sums / n
    size = np.abs(change)
    # Mirrored so that d >= 0; a fall is a rise at -D - d.
    start = np.where(change >= 0, middle, -middle)
    start = start if sign > 0 else -start - size
    best = np.full(len(sums), np.inf)
    for multiplier in np.geomspace(_MULTIPLIERS[0], _MULTIPLIERS[1], _MULTIPLIERS[2]) * error.mean() / radius:
        slope_end = start + error**2 / multiplier
        places = np.stack([start, np.maximum(start, 0), np.clip(slope_end, start, np.maximum(start, 0))])
        value = np.abs(places + size) - np.abs(places) - multiplier * ((places - start) / error) ** 2
        best = np.minimum(best, multiplier * radius**2 + value.max(axis=0).sum(axis=1))
    return np.asarray(np.minimum(best, size.sum(axis=1)))  # it cannot exceed the sum of |d| either
