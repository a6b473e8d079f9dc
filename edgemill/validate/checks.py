"""The checks that a recipe declares beside its budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from edgemill.recipe import FidelityGate, Gates
from edgemill.validate.calibration_error import check_calibration_error
from edgemill.validate.fidelity import check_divergence, check_sqnr
from edgemill.validate.groups import check_classes, check_slices
from edgemill.validate.macro_f1 import check_macro_f1
from edgemill.validate.pair import Checked, Pair
from edgemill.validate.proportion import check_agreement, check_flips
from edgemill.validate.question import POINTS, Question
from edgemill.validate.regression import check_r2, check_rmse
from edgemill.validate.top_k import check_top_k
from edgemill.validate.user_metric import check_metric
from edgemill.validate.verdict import Bound


@dataclass(frozen=True)
class Check:
    """A question and how it is answered."""

    question: Question
    answer: Callable[[Question, Pair], Checked]

    def run(self, pair: Pair) -> Checked:
        """Answer it."""
        return self.answer(self.question, pair)


def declared_checks(gates: Gates, confidence: float, metric_seconds: float) -> tuple[Check, ...]:
    """The checks of a recipe, in the order of its section.

    Args:
        gates: that section.
        confidence: one-sided, of each check.
        metric_seconds: time budget of the recipe's own metric.
    """
    return tuple(_checks(gates, confidence, metric_seconds))


def _checks(gates: Gates, confidence: float, metric_seconds: float) -> Iterator[Check]:
    def ask(gate: str, what: str, margin: float, unit: str = "") -> Question:
        return Question(gate, what, margin, confidence, unit=unit)

    if (top := gates.top_k) is not None:
        question = ask("top_k", f"the drop of top-{top.k} accuracy", top.max_drop, POINTS)
        yield Check(question, partial(check_top_k, k=top.k))
    if gates.macro_f1 is not None:
        yield Check(ask("macro_f1", "the drop of macro-F1", gates.macro_f1.max_drop, POINTS), check_macro_f1)
    if gates.classes is not None:
        question = ask("classes", "the largest drop of any class", gates.classes.max_drop, POINTS)
        yield Check(question, check_classes)
    if (slices := gates.slices) is not None:
        question = ask("slices", "the largest drop of any slice", slices.max_drop, POINTS)
        yield Check(question, partial(check_slices, function=slices.function))
    if gates.flips is not None:
        yield Check(ask("flips", "the share of changed answers", gates.flips.max_rate, POINTS), check_flips)
    if (calibration := gates.calibration_error) is not None:
        question = ask("calibration_error", "the rise of the calibration error", calibration.max_rise, POINTS)
        yield Check(question, partial(check_calibration_error, bins=calibration.bins))
    if gates.rmse is not None:
        yield Check(ask("rmse", "the rise of the RMSE", gates.rmse.max_rise), check_rmse)
    if gates.r2 is not None:
        yield Check(ask("r2", "the drop of R2", gates.r2.max_drop), check_r2)
    if gates.fidelity is not None:
        yield from _fidelity(gates.fidelity, confidence)
    if (metric := gates.metric) is not None:
        question = ask(metric.name, f"the loss of {metric.name}", metric.max_loss)
        yield Check(question, partial(check_metric, rule=metric, seconds=metric_seconds))


def _fidelity(rule: FidelityGate, confidence: float) -> Iterator[Check]:
    if (share := rule.min_agreement) is not None:
        question = Question("fidelity_agreement", "the share of equal answers", share, confidence, Bound.ABOVE, POINTS)
        yield Check(question, check_agreement)
    if (ratio := rule.min_sqnr_db) is not None:
        question = Question("fidelity_sqnr", "the signal to noise ratio", ratio, confidence, Bound.ABOVE, "dB")
        yield Check(question, check_sqnr)
    if (limit := rule.max_kl) is not None:
        question = Question("fidelity_kl", "the mean divergence", limit, confidence, unit="nats")
        yield Check(question, check_divergence)
