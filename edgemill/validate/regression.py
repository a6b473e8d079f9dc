"""Regression: rise of the root mean squared error, drop of the coefficient of determination."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemill.validate.bootstrap import MIN_SAMPLES, bootstrap_sums
from edgemill.validate.faults import Broken, Fault
from edgemill.validate.pair import Checked, Pair, broken
from edgemill.validate.question import Question, needed_from_width
from edgemill.validate.scores import flat_rows


def check_rmse(question: Question, pair: Pair) -> Checked:
    """Bounds of RMSE(variant) - RMSE(baseline), in the unit of the target; the mean is over all values."""
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    targets = _values(pair.truth)
    errors = np.stack(
        [((_values(outputs) - targets) ** 2).mean(axis=1) for outputs in (pair.baseline, pair.variant)], axis=1
    )
    bounds = bootstrap_sums(errors, _rise, question.confidence, pair.seed, pair.resamples)
    needed = needed_from_width(bounds.numbers, question.margin, pair.n)
    return Checked(question.answer(bounds.numbers, pair.n, f"RMSE, paired {bounds.method}", needed))


def check_r2(question: Question, pair: Pair) -> Checked:
    """Bounds of R2(baseline) - R2(variant), R2 = 1 - squared errors / squared deviations from the mean target.

    Several outputs are pooled, which weights each by its variance.
    """
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    targets = _values(pair.truth)
    if np.all(targets == targets[:1]):
        text = "all targets are the same, so the share of their variance that is explained is undefined"
        return broken(question, pair.n, Broken(fault=Fault.LABELS_CONSTANT, text=text))
    residuals = [((_values(outputs) - targets) ** 2).sum(axis=1) for outputs in (pair.baseline, pair.variant)]
    centred = targets - targets.mean(axis=0)
    features = np.column_stack([*residuals, (centred**2).sum(axis=1), centred])
    bounds = bootstrap_sums(features, _drop, question.confidence, pair.seed, pair.resamples)
    needed = needed_from_width(bounds.numbers, question.margin, pair.n)
    return Checked(question.answer(bounds.numbers, pair.n, f"R2, paired {bounds.method}", needed))


def _values(array: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.asarray(flat_rows(array), dtype=np.float64)


def _rise(sums: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    means = np.sqrt(np.maximum(sums, 0) / n)
    return np.asarray(means[:, 1] - means[:, 0])


def _drop(sums: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    spread = sums[:, 2] - (sums[:, 3:] ** 2).sum(axis=1) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((sums[:, 1] - sums[:, 0]) / np.where(spread > 0, spread, np.nan))
