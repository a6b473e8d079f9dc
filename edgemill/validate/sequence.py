"""Several variants, one test set: a fixed sequence keeps the promise for the whole family.

Hypotheses tested one after another at the full level, in an order fixed before the test data are
seen, stopping at the first that is not rejected, have a family-wise error of at most that level
(Maurer, Hothorn and Lehmacher 1995; Wiens 2003, Pharmaceutical Statistics 2:211-215). Here the
order comes from validation data (`edgemill.select.gate_order`) and "rejected" is PASS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgemill.recipe import Budget
from edgemill.validate.verdict import Decision, Verdict


def run_in_sequence(order: Sequence[str], test: Callable[[str], Verdict], budget: Budget) -> Mapping[str, Verdict]:
    """Gate variants in order, each only if all before it passed.

    Args:
        order: names of the variants of one target, safest first, fixed on validation data.
        test: makes the verdict of one variant on test data; called lazily, so what is not tested
            never touches the test split.
        budget: margin and confidence, for the verdicts of those that are not tested.

    Returns:
        A verdict for every name, in order.
    """
    verdicts: dict[str, Verdict] = {}
    stopped_at: str | None = None
    for name in order:
        if stopped_at is None:
            verdicts[name] = test(name)
            if not verdicts[name].passed:
                stopped_at = name
        else:
            verdicts[name] = not_tested(budget, stopped_at, verdicts[stopped_at].verdict)
    return verdicts


def not_tested(budget: Budget, stopped_at: str, outcome: Decision) -> Verdict:
    """Verdict of a variant whose turn never came."""
    return Verdict(
        gate="accuracy",
        verdict=Decision.INCONCLUSIVE,
        margin=budget.max_accuracy_drop,
        confidence=budget.confidence,
        n=0,
        method="none",
        reason=f"not tested: the fixed sequence ended at {stopped_at} ({outcome}); "
        "testing on would weaken the promise for the family",
    )
