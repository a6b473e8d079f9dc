"""A metric of the recipe's own, compared by a paired bootstrap over samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import RecipeError
from edgemill.recipe import MetricGate
from edgemill.recipe.gates import Direction
from edgemill.validate.bootstrap import BCA_LIMIT, MIN_SAMPLES, bounds_of
from edgemill.validate.faults import Broken, Fault
from edgemill.validate.pair import Checked, Pair, broken
from edgemill.validate.question import Question, needed_from_width
from edgemill.validate.unseen import UNSEEN, allow_unseen
from edgemill.validate.user_function import load_function

MAX_RESAMPLES = 999
MIN_RESAMPLES = 199

_WHERE = "gates.metric.function"
_JACKKNIFE_GROUPS = 50
_TRIES = 8

Rows = NDArray[np.int64]
"""(M, 3): of which sample the labels, the baseline's and the variant's outputs are taken."""


def check_metric(question: Question, pair: Pair, rule: MetricGate, seconds: float) -> Checked:
    """Bounds of how much worse the metric is for the variant.

    The function is called as `function(outputs, labels)` with float32 (M, ...) outputs and the labels
    of M samples (None for a task without labels), and gives one number.

    `allow_unseen` counts errors that the samples do not hold: one more sample is added to which the
    variant (baseline, for the lower bound) gives its answer to another one, the worst of some seeded
    choices.

    Args:
        question: of the loss.
        pair: the answers.
        rule: function and direction.
        seconds: after which resampling ends; said in `method`. With fewer than `MIN_RESAMPLES` by
            then it is INCONCLUSIVE.

    Raises:
        RecipeError: the function is missing, raises, or gives no finite number for the baseline.
    """
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    metric = _Metric(load_function(rule.function, _WHERE), rule, pair)
    started = time.monotonic()
    every = np.repeat(np.arange(pair.n)[:, None], 3, axis=1)
    usual, ours = metric.values(every)
    if not math.isfinite(usual):
        raise RecipeError(
            "The metric is not a finite number for the checkpoint itself.",
            where=_WHERE,
            expected="one finite number",
            got=f"{usual} for {pair.n} samples",
        )
    if not math.isfinite(ours):
        text = f"{rule.name} is {ours} for the variant, {usual:.6g} for the checkpoint"
        return broken(question, pair.n, Broken(fault=Fault.METRIC_UNDEFINED, text=text))
    rng = np.random.default_rng(pair.seed)
    loss = metric.loss(usual, ours)
    harm = (_one_more(metric, every, 2, rng) - loss, loss + _one_more(metric, every, 1, rng))
    left_out = _jackknife(metric, every) if pair.n <= BCA_LIMIT else None
    wanted = min(MAX_RESAMPLES, pair.resamples)
    values = np.array(_resample(metric, every, wanted, rng, started + seconds))
    if len(values) < min(wanted, MIN_RESAMPLES):
        text = f"{rule.name} is too slow: {len(values)} of at least {MIN_RESAMPLES} resamples in {seconds:g} s"
        return Checked(question.undecided(pair.n, text))
    plain = bounds_of(loss, values, left_out, question.confidence)
    numbers = allow_unseen(plain.numbers, (max(0.0, harm[0]), max(0.0, harm[1])), question.confidence)
    ended = f", ended at the time budget of {seconds:g} s" if len(values) < wanted else ""
    method = f"{rule.name}, paired {plain.method}, {len(values)} resamples{ended}, {UNSEEN}"
    needed = needed_from_width(numbers, question.margin, pair.n, (plain.lower, plain.upper))
    return Checked(question.answer(numbers, pair.n, method, needed))


@dataclass(frozen=True)
class _Metric:
    function: Callable[..., Any]
    rule: MetricGate
    pair: Pair

    def values(self, rows: Rows) -> tuple[float, float]:
        labels = None if self.pair.labels is None else self.pair.labels[rows[:, 0]]
        return self._call(self.pair.baseline[rows[:, 1]], labels), self._call(self.pair.variant[rows[:, 2]], labels)

    def loss(self, usual: float, ours: float) -> float:
        return usual - ours if self.rule.better is Direction.HIGHER else ours - usual

    def loss_of(self, rows: Rows) -> float:
        return self.loss(*self.values(rows))

    def _call(self, outputs: NDArray[Any], labels: NDArray[Any] | None) -> float:
        try:
            return float(self.function(outputs, None if labels is None else labels.copy()))
        except Exception as error:  # the user's own code may raise anything
            raise RecipeError(
                "The recipe's own metric failed.",
                where=_WHERE,
                expected="one number",
                got=f"{self.rule.function}: {type(error).__name__}: {error}",
                remedy=f"call it by hand with outputs of shape {outputs.shape} and their labels; it is also called "
                "with samples drawn with replacement, in which a class may be missing",
            ) from error


def _one_more(metric: _Metric, every: Rows, column: int, rng: np.random.Generator) -> float:
    """Worst loss of one side (2: of the variant, 1: of the baseline, negated) with one swapped answer more."""
    sign, worst = (1 if column == 2 else -1), -math.inf
    for _ in range(_TRIES):
        extra = np.full((1, 3), rng.integers(0, len(every)))
        extra[0, column] = (extra[0, column] + rng.integers(1, len(every))) % len(every)
        worst = max(worst, sign * metric.loss_of(np.concatenate([every, extra])))
    return worst


def _resample(metric: _Metric, every: Rows, wanted: int, rng: np.random.Generator, deadline: float) -> list[float]:
    """Losses of resamples, as many as there is time for."""
    values: list[float] = []
    while len(values) < wanted and time.monotonic() < deadline:
        values.append(metric.loss_of(every[rng.integers(0, len(every), len(every))]))
    return values


def _jackknife(metric: _Metric, rows: Rows) -> NDArray[np.float64]:
    """Loss with one of at most 50 groups of samples left out, for the acceleration of BCa."""
    group = np.arange(len(rows)) % min(_JACKKNIFE_GROUPS, len(rows))
    return np.array([metric.loss_of(rows[group != left]) for left in range(int(group.max()) + 1)])
