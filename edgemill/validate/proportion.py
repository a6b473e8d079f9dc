"""A share of samples against a margin: exact, one-sided."""

from __future__ import annotations

from scipy import stats

from edgemill.validate.pair import Checked, Pair
from edgemill.validate.question import Question, first_size
from edgemill.validate.scores import changed_answers
from edgemill.validate.verdict import Bound, Decision, Verdict

METHOD = "exact interval of a proportion (Clopper and Pearson 1934)"


def clopper_pearson(count: float, n: float, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bounds of a proportion, each holding with at least `confidence`.

    Clopper and Pearson (1934), Biometrika 26:404-413, as quantiles of the beta distribution.

    Args:
        count: of n (a fraction is accepted, for planning).
        n: samples, > 0.
        confidence: one-sided.
    """
    lower = 0.0 if count <= 0 else float(stats.beta.ppf(1 - confidence, count, n - count + 1))
    upper = 1.0 if count >= n else float(stats.beta.ppf(confidence, count + 1, n - count))
    return lower, upper


def compare_share(question: Question, count: int, n: int) -> Verdict:
    """Is a share of samples on the right side of the margin?

    Args:
        question: of a share.
        count: samples that have the property.
        n: all samples.
    """
    rate = count / n if n else (0.0 if question.bound is Bound.BELOW else 1.0)

    def decided(size: int) -> bool:
        return question.decide(*clopper_pearson(rate * size, size, question.confidence)) is not Decision.INCONCLUSIVE

    if n == 0:
        return question.too_few(0, first_size(decided))
    lower, upper = clopper_pearson(count, n, question.confidence)
    undecided = question.decide(lower, upper) is Decision.INCONCLUSIVE
    return question.answer((rate, lower, upper), n, METHOD, first_size(decided) if undecided else None)


def check_flips(question: Question, pair: Pair) -> Checked:
    """Upper bound of the share of samples whose answer is not the baseline's (see `changed_answers`)."""
    changed = changed_answers(pair.task, pair.variant, pair.baseline)
    return Checked(compare_share(question, int(changed.sum()), pair.n))


def check_agreement(question: Question, pair: Pair) -> Checked:
    """Lower bound of the share of samples whose answer is the baseline's."""
    changed = changed_answers(pair.task, pair.variant, pair.baseline)
    return Checked(compare_share(question, pair.n - int(changed.sum()), pair.n))
