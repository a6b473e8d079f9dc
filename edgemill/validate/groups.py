"""Accuracy within every class, or every slice of the data, on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import DataError
from edgemill.validate.exact_paired import EXACT, exact_lower, exact_upper
from edgemill.validate.faults import Broken, Fault, absent_classes
from edgemill.validate.pair import Checked, Pair, broken
from edgemill.validate.paired_proportions import samples_needed_binary
from edgemill.validate.question import SEARCH_LIMIT, Question, needed_from_width
from edgemill.validate.user_function import call_function
from edgemill.validate.verdict import Decision, Group, Verdict

METHOD = "{} groups, {}; all must pass (intersection-union), one fails with Holm's correction"

_MAX_SLICES = 1000
_estimate, _lower, _upper = map(attrgetter, ("estimate", "lower", "upper"))
_WHERE = "gates.slices.function"

Counts = tuple[int, int, int]
"""Lost, won and all samples of a group."""


def check_classes(question: Question, pair: Pair) -> Checked:
    """No class may lose more than the margin; a class without a sample is a fault."""
    if (absent := absent_classes(pair.truth, pair.baseline)) is not None:
        return broken(question, pair.n, absent)
    labels = pair.truth.reshape(-1)
    return _check_groups(question, pair, [(str(label), labels == label) for label in np.unique(labels)])


def check_slices(question: Question, pair: Pair, function: str) -> Checked:
    """No slice may lose more than the margin; a sample without the name of a slice is a fault.

    The function is called as `function(x, labels)` with the stored samples (N, ...), not
    preprocessed, and the labels, and gives N names.

    Raises:
        RecipeError: the function is missing or raises.
        DataError: it gives something else than one name a sample, or nearly a slice for each.
    """
    names = _names(call_function(function, _WHERE, pair.samples(), pair.truth.copy()), pair.n)
    unnamed = np.array([name is None for name in names])
    if unnamed.any():
        text = f"{int(unnamed.sum())} of {pair.n} samples have no slice, the first is sample {int(np.argmax(unnamed))}"
        return broken(question, pair.n, Broken(fault=Fault.SLICE_UNNAMED, text=text))
    of = np.array(names, dtype=object)
    slices = sorted({str(name) for name in names})
    if len(slices) > _MAX_SLICES:
        raise DataError(
            "There are too many slices to say something of each.",
            where=_WHERE,
            expected=f"at most {_MAX_SLICES}",
            got=f"{len(slices)} in {pair.n} samples",
        )
    return _check_groups(question, pair, [(name, of == name) for name in slices])


def _check_groups(question: Question, pair: Pair, members: Sequence[tuple[str, NDArray[np.bool_]]]) -> Checked:
    """PASS of all needs each to pass at the full level, FAIL of all needs one proven worse.

    "Every group loses less than the margin" is proven by a test of each at the full level: an
    intersection-union test (Berger 1982, Technometrics 24:295-300) needs no correction. That some
    group loses more is one of many chances to err, so each FAIL is corrected by the step-down
    procedure of Holm (1979, Scandinavian Journal of Statistics 6:65-70).

    The bounds of the check are of the largest drop of any group: the largest upper bound, which
    holds as it stands, and the largest lower bound at Bonferroni's level.
    """
    if not members:
        return Checked(question.too_few(pair.n, 1))
    usual, ours = pair.scores
    counts = [
        (
            int(np.count_nonzero(inside & (usual > ours))),
            int(np.count_nonzero(inside & (usual < ours))),
            int(inside.sum()),
        )
        for _, inside in members
    ]
    bounds = [_bounds(lost, won, n, question.confidence) for lost, won, n in counts]
    worse = _proven_worse(question, counts, bounds)
    groups = tuple(
        Group(
            gate=question.gate,
            name=name,
            n=n,
            lost=lost,
            won=won,
            estimate=(lost - won) / n,
            lower=lower,
            upper=upper,
            verdict=_decision(question, upper, failed),
        )
        for (name, _), (lost, won, n), (lower, upper), failed in zip(members, counts, bounds, worse, strict=True)
    )
    return Checked(_overall(question, pair.n, groups), groups)


@lru_cache(maxsize=1 << 14)
def _bounds(lost: int, won: int, n: int, confidence: float) -> tuple[float, float]:
    return exact_lower(lost, won, n, confidence), exact_upper(lost, won, n, confidence)


def _decision(question: Question, upper: float, proven_worse: bool) -> Decision:
    if proven_worse:
        return Decision.FAIL
    return Decision.PASS if upper < question.margin else Decision.INCONCLUSIVE


def _proven_worse(question: Question, counts: Sequence[Counts], bounds: Sequence[tuple[float, float]]) -> list[bool]:
    """Holm: reject at level / (number not yet rejected) until nothing more is rejected."""
    worse = [False] * len(counts)
    # What is not rejected at the full level is not rejected at a stricter one.
    open_ = [index for index, (lower, _) in enumerate(bounds) if lower > question.margin]
    while open_:
        strict = _corrected(question.confidence, worse.count(False))
        found = [index for index in open_ if exact_lower(*counts[index], strict) > question.margin]
        if not found:
            break
        for index in found:
            worse[index] = True
        open_ = [index for index in open_ if index not in found]
    return worse


def _corrected(confidence: float, tests: int) -> float:
    return 1 - (1 - confidence) / tests


def _overall(question: Question, n: int, groups: Sequence[Group]) -> Verdict:
    decisions = [group.verdict for group in groups]
    decision = next((d for d in (Decision.FAIL, Decision.INCONCLUSIVE) if d in decisions), Decision.PASS)
    worst = max(groups, key=_upper)
    numbers = max(map(_estimate, groups)), _largest_lower(question, groups), _upper(worst)
    needed = _needed(question, n, groups) if decision is Decision.INCONCLUSIVE else None
    verdict = question.answer(numbers, n, METHOD.format(len(groups), EXACT), needed)
    if decision is Decision.PASS:
        reason = f"{verdict.reason}; the highest bound is that of {worst.name}"
    else:
        culprits = sorted((group for group in groups if group.verdict is decision), key=_estimate, reverse=True)
        listed = ", ".join(map(_described, culprits[:3])) + (", ..." if culprits[3:] else "")
        word = "lose more than" if decision is Decision.FAIL else "are undecided at"
        limit = f"the margin of {100 * question.margin:.3g} points"
        reason = f"{len(culprits)} of {len(groups)} groups {word} {limit}: {listed}"
        reason += f"; about {needed:,} samples would decide" if needed is not None else ""
    return verdict.model_copy(update={"verdict": decision, "reason": reason})


def _largest_lower(question: Question, groups: Sequence[Group]) -> float:
    """Simultaneous lower bound of the largest drop: the largest of the bounds at Bonferroni's level."""
    strict = _corrected(question.confidence, len(groups))
    largest = -math.inf
    for group in sorted(groups, key=_lower, reverse=True):
        if _lower(group) <= largest:  # at the stricter level it is lower still
            break
        largest = max(largest, exact_lower(group.lost, group.won, group.n, strict))
    return largest


def _needed(question: Question, n: int, groups: Sequence[Group]) -> int | None:
    """Samples in all that would decide the group that needs most, at the same shares of groups."""
    wanted: dict[str, float] = {}
    for group in groups:
        if group.verdict is Decision.INCONCLUSIVE:
            rough = needed_from_width((_estimate(group), _lower(group), _upper(group)), question.margin, group.n)
            if rough is None:
                return None
            wanted[group.name] = rough / group.n
    hardest = next(group for group in groups if group.name == max(wanted, key=lambda name: wanted[name]))
    rates = hardest.lost / hardest.n, hardest.won / hardest.n
    needed = samples_needed_binary(*rates, question.margin, question.confidence)
    if needed is None or (total := math.ceil(needed * n / hardest.n)) > SEARCH_LIMIT:
        return None
    return max(total, n + 1)


def _described(group: Group) -> str:
    low, estimate, high = (f"{100 * value:.3g}" for value in (group.lower, group.estimate, group.upper))
    return f"{group.name} (drop {estimate}, {low} to {high} points, {group.n} samples)"


def _names(answer: Any, n: int) -> list[str | None]:
    try:
        names = list(answer)
    except TypeError:
        names = []
    if isinstance(answer, str | bytes) or len(names) != n:
        raise DataError(
            "The slice function must give one name a sample.",
            where=_WHERE,
            expected=f"a sequence of {n} names",
            got=f"{type(answer).__name__} of {len(names)}" if names else type(answer).__name__,
        )
    return [_name(item) for item in names]


def _name(item: Any) -> str | None:
    if isinstance(item, bytes):
        item = item.decode(errors="replace")
    if item is None or (isinstance(item, float | np.floating) and math.isnan(item)):
        return None
    return str(item).strip() or None
