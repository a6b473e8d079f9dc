import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.search.front import dominates, history, hypervolume, pareto

STEPS = 6


def ratios(goals: int, most: int = 6) -> st.SearchStrategy[list[tuple[float, ...]]]:
    """Ratios whose gains are whole tenths of a decade, so that a grid of tenths counts them exactly."""
    place = st.integers(-1, STEPS)
    return st.lists(st.tuples(*[place] * goals), max_size=most).map(
        lambda points: [tuple(10 ** (-value / 10) for value in point) for point in points]
    )


def counted(points: list[tuple[float, ...]], goals: int) -> float:
    """Brute force: cells of a tenth of a decade that lie within at least one point's box."""
    corners = [[round(-10 * math.log10(value)) for value in point] for point in points]
    cells = itertools.product(range(STEPS), repeat=goals)
    inside = sum(
        any(all(at < end for at, end in zip(cell, corner, strict=True)) for corner in corners) for cell in cells
    )
    return inside / 10**goals


class TestHypervolume:
    @pytest.mark.parametrize("goals", [1, 2, 3])
    def test_is_that_of_brute_force(self, goals: int) -> None:
        @settings(max_examples=60, deadline=None)
        @given(ratios(goals))
        def check(points: list[tuple[float, ...]]) -> None:
            assert hypervolume(points) == pytest.approx(counted(points, goals), abs=1e-9)

        check()

    def test_a_tenth_in_both_goals_is_one_square_decade(self) -> None:
        assert hypervolume([(0.1, 0.1)]) == pytest.approx(1)

    def test_nothing_is_gained_by_what_is_worse_than_the_baseline_in_one_goal(self) -> None:
        assert hypervolume([(0.01, 1.0), (2.0, 0.01)]) == 0

    @given(ratios(2), ratios(2))
    def test_more_points_never_make_it_smaller(
        self, first: list[tuple[float, ...]], more: list[tuple[float, ...]]
    ) -> None:
        assert hypervolume([*first, *more]) >= hypervolume(first) - 1e-12

    @given(ratios(2))
    def test_only_the_front_counts(self, points: list[tuple[float, ...]]) -> None:
        assert hypervolume([points[index] for index in pareto(points)]) == pytest.approx(hypervolume(points))

    def test_after_each_trial(self) -> None:
        assert history([None, (0.1, 0.1), None, (0.1, 0.01)]) == pytest.approx((0, 1, 1, 2))


class TestPareto:
    @given(ratios(3, most=12))
    def test_nothing_left_out_is_better_than_what_stays(self, points: list[tuple[float, ...]]) -> None:
        front = pareto(points)
        for index, point in enumerate(points):
            if index in front:
                assert not any(dominates(other, point) for other in points)
            else:
                assert any(points[place] == point or dominates(points[place], point) for place in front)

    def test_of_equals_the_first_stays(self) -> None:
        assert pareto([(0.5, 0.5), (0.5, 0.5)]) == [0]
