"""How near real-valued outputs stay to the checkpoint's: signal to noise, and divergence of probabilities."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import RecipeError
from edgemill.recipe import Task
from edgemill.validate.bootstrap import MIN_SAMPLES, bootstrap_sums
from edgemill.validate.pair import Checked, Pair
from edgemill.validate.probabilities import probabilities
from edgemill.validate.question import Question, needed_from_width
from edgemill.validate.scores import class_like, flat_rows
from edgemill.validate.unseen import UNSEEN, allow_unseen

FLOAT32_DB = -20 * math.log10(float(np.finfo(np.float32).eps))
"""Outputs are float32, whose rounding alone leaves this many dB; nothing is counted above."""

PROBABILITY_FLOOR = 1e-6
"""Least probability that counts: an 8-bit softmax says 0 for what is below 1/256."""


def check_sqnr(question: Question, pair: Pair) -> Checked:
    """Bounds of 10 log10(sum of squares of the baseline's outputs / sum of squared differences), dB.

    Pooled over all samples and output values, bootstrapped over samples.
    """
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    usual, ours = (np.asarray(flat_rows(outputs), dtype=np.float64) for outputs in (pair.baseline, pair.variant))
    powers = np.stack([(usual**2).sum(axis=1), ((usual - ours) ** 2).sum(axis=1)], axis=1)
    bounds = bootstrap_sums(powers, _decibels, question.confidence, pair.seed, pair.resamples)
    needed = needed_from_width(bounds.numbers, question.margin, pair.n)
    return Checked(question.answer(bounds.numbers, pair.n, f"SQNR, paired {bounds.method}", needed))


def check_divergence(question: Question, pair: Pair) -> Checked:
    """Bounds of the mean Kullback-Leibler divergence sum p ln(p / q), p the baseline's and q the variant's, nats.

    Probabilities below `PROBABILITY_FLOOR` are raised to it, then rows are scaled to sum to one.
    `allow_unseen` counts samples that get the answer to another one.

    Raises:
        RecipeError: the outputs are not class probabilities.
    """
    if pair.task is not Task.CLASSIFICATION and not (pair.task is Task.UNLABELLED and class_like(pair.baseline)):
        raise RecipeError(
            "The divergence of probabilities needs a model that answers with probabilities.",
            where="gates.fidelity.max_kl",
            expected="a classifier; without labels one that ends in a softmax",
            got=f"task {pair.task}, output shape {pair.baseline.shape[1:]}",
            remedy="use min_sqnr_db or min_agreement",
        )
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    p, q = (_normal(probabilities(outputs, pair.baseline)) for outputs in (pair.baseline, pair.variant))
    divergence = _divergence(p, q)
    plain = bootstrap_sums(divergence[:, None], _mean, question.confidence, pair.seed, pair.resamples)
    wrong = float(_divergence(p, np.roll(q, 1, axis=0)).mean()) / pair.n
    numbers = allow_unseen(plain.numbers, (wrong, 0.0), question.confidence)
    needed = needed_from_width(numbers, question.margin, pair.n, (plain.lower, plain.upper))
    return Checked(question.answer(numbers, pair.n, f"mean divergence, {plain.method}, {UNSEEN}", needed))


def _divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((p * np.log(p / q)).sum(axis=1))


def _normal(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.maximum(values, PROBABILITY_FLOOR)
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _decibels(sums: NDArray[np.float64], _n: float) -> NDArray[np.float64]:
    signal, noise = np.maximum(sums, 0).T
    limit = 10 ** (FLOAT32_DB / 10)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(noise > 0, signal / noise, limit)
    return np.asarray(10 * np.log10(np.clip(ratio, 1 / limit, limit)))


def _mean(sums: NDArray[np.float64], n: float) -> NDArray[np.float64]:
    return np.asarray(sums[:, 0] / n)
