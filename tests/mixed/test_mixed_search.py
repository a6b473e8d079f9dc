"""The search itself, on trials that count what they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from edgemill.quantize.mixed.search import fewest, put_back


class Count:
    """A trial whose answers come from two functions of the float groups."""

    def __init__(
        self, passes: Callable[[frozenset[int]], bool], hopeful: Callable[[frozenset[int]], bool], limit: int = 10**6
    ) -> None:
        self._passes, self._hopeful, self.limit = passes, hopeful, limit
        self.full: list[frozenset[int]] = []

    @property
    def left(self) -> int:
        return self.limit - len(self.full)

    def hopeful(self, wide: frozenset[int]) -> bool:
        return self._hopeful(wide)

    def passes(self, wide: frozenset[int]) -> bool:
        self.full.append(wide)
        return self._passes(wide)


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.randoms())
def test_whatever_the_cheap_looks_say_evaluations_are_logarithmic_and_the_result_passes(sizes, random):
    n, needed = sizes
    order = list(range(n))
    random.shuffle(order)
    lies: dict[frozenset[int], bool] = {}
    trial = Count(lambda wide: len(wide) >= needed, lambda wide: lies.setdefault(wide, random.random() < 0.5))
    found = fewest(order, trial)
    assert needed <= len(found) <= n
    assert found == frozenset(order[: len(found)])
    assert len(trial.full) <= 2 * math.log2(n) + 2
    assert found == frozenset(order) or found in trial.full


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_with_good_cheap_looks_one_evaluation_finds_the_fewest(sizes):
    n, needed = sizes
    trial = Count(lambda wide: len(wide) >= needed, lambda wide: len(wide) >= needed)
    assert len(fewest(range(n), trial)) == needed
    assert len(trial.full) <= 1


@given(st.integers(2, 300).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_without_useful_cheap_looks_the_fewest_are_found(sizes):
    n, needed = sizes
    trial = Count(lambda wide: len(wide) >= needed, lambda wide: True)
    assert len(fewest(range(n), trial)) == needed
    assert len(trial.full) <= 2 * math.log2(n) + 2


@given(st.integers(1, 200), st.integers(0, 3))
def test_the_limit_of_evaluations_is_kept(needed, limit):
    trial = Count(lambda wide: len(wide) >= needed, lambda wide: True, limit)
    found = fewest(range(200), trial)
    kept = put_back(range(200), found, trial)
    assert len(trial.full) <= limit
    assert len(found) >= needed
    assert len(kept) >= needed


@given(st.sets(st.integers(0, 19), min_size=1), st.permutations(range(20)))
def test_putting_back_leaves_only_what_is_needed(needed, order):
    def passes(wide: frozenset[int]) -> bool:
        return needed <= wide

    trial = Count(passes, passes)
    found = fewest(order, trial)
    assert put_back(order, found, trial) == needed


def test_a_single_group_needs_no_evaluation():
    trial = Count(bool, lambda wide: True)
    assert fewest([0], trial) == {0}
    assert put_back([0], frozenset({0}), trial) == {0}
    assert trial.full == []
