"""Anomaly detection: the area under the ROC curve, and the paired test of its drop.

The area is the probability that an anomalous sample scores higher than a normal one, a tie
counting one half.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from edgemill.recipe import Budget
from edgemill.validate.decide import main_question
from edgemill.validate.question import needed_from_width
from edgemill.validate.unseen import UNSEEN, allow_unseen
from edgemill.validate.verdict import Verdict

DELONG = "paired areas under the ROC curve (DeLong et al. 1988)"

MIN_OF_A_CLASS = 10
"""Normal or anomalous samples below which the normal approximation is not trusted."""


def area_under_curve(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, 0..1.

    Args:
        scores: (N,), higher is more anomalous.
        anomalous: (N,); both kinds must be there.
    """
    return float(delong(scores[None], anomalous)[0][0])


def delong(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Areas of several detectors on the same samples, and the covariance of these estimates.

    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845, computed from midranks in
    O(N log N) as by Sun and Xu (2014), IEEE Signal Processing Letters 21:1389-1393, equations 5-10.

    Args:
        scores: float64 (k, N), higher is more anomalous.
        anomalous: (N,); both kinds must be there.

    Returns:
        areas (k,) and covariance (k, k); the latter is NaN where a kind has one sample only.
    """
    ordered = np.concatenate([scores[:, anomalous], scores[:, ~anomalous]], axis=1)
    m = int(np.count_nonzero(anomalous))
    n = ordered.shape[1] - m
    ranks = stats.rankdata(ordered, axis=1)
    areas = (ranks[:, :m].sum(axis=1) / m - (m + 1) / 2) / n
    of_anomalous = (ranks[:, :m] - stats.rankdata(ordered[:, :m], axis=1)) / n
    of_normal = 1 - (ranks[:, m:] - stats.rankdata(ordered[:, m:], axis=1)) / m
    if m == 1 or n == 1:
        return areas, np.full((len(scores), len(scores)), math.nan)
    return areas, np.atleast_2d(np.cov(of_anomalous)) / m + np.atleast_2d(np.cov(of_normal)) / n


def reversed_ranking(scores: NDArray[np.float64], anomalous: NDArray[np.bool_], budget: Budget) -> bool:
    """Whether scores are proven, at the budget's confidence, to be lower for anomalous samples."""
    areas, covariance = delong(scores[None], anomalous)
    return bool(areas[0] + stats.norm.ppf(budget.confidence) * np.sqrt(covariance[0, 0]) < 0.5)  # NaN: not proven


def compare_auc(
    baseline: NDArray[np.float64], variant: NDArray[np.float64], anomalous: NDArray[np.bool_], budget: Budget
) -> Verdict:
    """Test the drop of the area under the ROC curve.

    DeLong's variance is near zero where hardly any sample is ranked wrongly, so alone it would trust a
    detector that has merely not met what it misses. Therefore `allow_unseen` counts samples of the rarer
    kind that one side ranks first and the other last.

    Args:
        baseline: (N,), anomaly score of every sample.
        variant: (N,), of the same samples in the same order.
        anomalous: (N,); both kinds must be there.
        budget: margin (of the area, 0..1) and one-sided confidence.
    """
    question = main_question(budget, points=True)
    total = len(anomalous)
    rarer = int(min(np.count_nonzero(anomalous), np.count_nonzero(~anomalous)))
    if rarer < MIN_OF_A_CLASS:
        return question.too_few(total, math.ceil(total * MIN_OF_A_CLASS / max(1, rarer)))
    estimate, error = _difference(np.stack([baseline, variant]), anomalous)
    width = float(stats.norm.ppf(budget.confidence)) * error
    plain = estimate, estimate - width, estimate + width
    numbers = allow_unseen(plain, (1 / rarer, 1 / rarer), budget.confidence)
    needed = needed_from_width(numbers, question.margin, total, plain[1:])
    return question.answer(numbers, total, f"{DELONG}, {UNSEEN}", needed)


def _difference(scores: NDArray[np.float64], anomalous: NDArray[np.bool_]) -> tuple[float, float]:
    """Area of the first minus area of the second of (2, N) scores, and its standard error."""
    areas, covariance = delong(scores, anomalous)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float(areas[0] - areas[1]), math.sqrt(max(0.0, variance))
