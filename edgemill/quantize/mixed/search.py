"""The fewest groups that must stay float, with few passes over the validation samples.

The groups are sorted, most harmful first; as many of them as needed are float. Bisection finds how many
(O(log n) full evaluations; NNCF's accuracy control takes groups one at a time, one full evaluation each).
A cheap look at the samples where the last rejected candidate was most at odds with the float answers says
where to look first; a full evaluation has the last word. Then groups are put back to int8 one at a time where the
candidate still passes, as Intel Neural Compressor's tuning strategy "mse_v2" does after its fallback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Wide = frozenset[int]
"""Indices of the groups that are float."""


class Trial(Protocol):
    """What can be asked about a candidate."""

    @property
    def left(self) -> int:
        """Full evaluations that may still be made."""

    def hopeful(self, wide: Wide) -> bool:
        """Whether it could pass, by a few samples; deterministic between two full evaluations."""

    def passes(self, wide: Wide) -> bool:
        """Whether it passes on all samples: one full evaluation."""


def fewest(order: Sequence[int], trial: Trial) -> Wide:
    """The shortest beginning of a sorted list that passes, as far as evaluations last.

    None float is known to fail, all float to pass. A cheap "no" ends the search below it; after a cheap
    "yes" that was wrong the next full evaluation is at least at the middle, so that there are at most
    2 log2(n) + 2 of them.

    Args:
        order: groups, most harmful first.
        trial: of the candidates.

    Returns:
        groups that stay float; all of them where no shorter beginning was seen to pass.
    """
    low, high = 0, len(order)
    deceived = False
    while high - low > 1 and trial.left:
        count = _first_hopeful(order, low, high, trial)
        if deceived:
            count = max(count, (low + high) // 2)
        if count >= high:
            break
        if trial.passes(frozenset(order[:count])):
            high, deceived = count, False
        else:
            low, deceived = count, True
    return frozenset(order[:high])


def put_back(order: Sequence[int], wide: Wide, trial: Trial) -> Wide:
    """Try to return float groups to int8, least harmful first, one at a time.

    Args:
        order: all groups, most harmful first.
        wide: what passes.
        trial: of the candidates.

    Returns:
        a subset of `wide` that passes.
    """
    kept = wide
    for index in reversed([index for index in order if index in wide]):
        fewer = kept - {index}
        if trial.left and fewer and trial.hopeful(fewer) and trial.passes(fewer):
            kept = fewer
    return kept


def _first_hopeful(order: Sequence[int], low: int, high: int, trial: Trial) -> int:
    """By bisection a count in low + 1 .. high that is hopeful after one that is not; `high` where none is."""
    while high - low > 1:
        middle = (low + high) // 2
        if trial.hopeful(frozenset(order[:middle])):
            high = middle
        else:
            low = middle
    return high
