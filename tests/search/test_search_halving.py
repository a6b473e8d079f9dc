import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.search.halving import Short, judge

NEEDED, ERROR = 0.92, 0.003


def students(most: int = 9) -> st.SearchStrategy[list[Short]]:
    share = st.floats(0.01, 0.99)
    full = st.one_of(st.none(), st.floats(0.5, 1))
    one = st.builds(Short, st.text(min_size=1, max_size=4), st.tuples(share, share), st.floats(0.1, 1), full)
    return st.lists(one, max_size=most)


class TestJudge:
    @given(students(1))
    def test_the_first_is_never_stopped(self, one: list[Short]) -> None:
        for student in one:
            assert judge(student, [], needed=NEEDED, standard_error=ERROR).promoted

    @given(students(), st.floats(0.1, 1), st.floats(0, 0.05))
    def test_what_nobody_beats_goes_on_if_it_can_reach_the_budget(
        self, earlier: list[Short], score: float, gain: float
    ) -> None:
        student = Short("new", (0.001, 0.001), score)
        verdict = judge(student, earlier, needed=min(0.1, score), standard_error=ERROR)
        assert verdict.promoted, verdict.reason

    def test_a_smaller_student_may_score_less(self) -> None:
        large = Short("large", (0.2, 0.1), 0.92, 0.93)
        small = Short("small", (0.1, 0.05), 0.90)
        assert judge(small, [large, large], needed=NEEDED, standard_error=ERROR).promoted

    def test_larger_slower_and_worse_is_stopped(self) -> None:
        good = [Short(name, (0.1, 0.1), 0.93, 0.935) for name in "abc"]
        verdict = judge(Short("bad", (0.2, 0.2), 0.92), good, needed=0.9, standard_error=ERROR)
        assert not verdict.promoted
        assert "as fast, as small and as accurate" in verdict.reason

    def test_what_cannot_reach_the_budget_is_stopped(self) -> None:
        earlier = [Short("a", (0.3, 0.3), 0.91, 0.93), Short("b", (0.2, 0.2), 0.90, 0.925)]
        tiny = Short("tiny", (0.01, 0.01), 0.80)
        verdict = judge(tiny, earlier, needed=NEEDED, standard_error=ERROR)
        assert not verdict.promoted
        assert "0.9200 is needed" in verdict.reason

    def test_twice_the_gain_of_others_is_granted(self) -> None:
        earlier = [Short("a", (0.3, 0.3), 0.90, 0.93), Short("b", (0.2, 0.2), 0.90, 0.925)]
        assert judge(Short("c", (0.1, 0.1), 0.87), earlier, needed=NEEDED, standard_error=ERROR).promoted

    def test_one_full_training_is_too_few_to_call_a_loss_hopeless(self) -> None:
        earlier = [Short("a", (0.3, 0.3), 0.91, 0.93)]
        assert judge(Short("c", (0.1, 0.1), 0.3), earlier, needed=NEEDED, standard_error=ERROR).promoted

    @pytest.mark.parametrize("score", [math.nan, -math.inf])
    def test_a_training_that_diverged_is_stopped(self, score: float) -> None:
        assert not judge(Short("c", (0.1, 0.1), score), [], needed=NEEDED, standard_error=ERROR).promoted

    @given(students(), students(1))
    def test_the_order_of_those_before_does_not_matter(self, earlier: list[Short], one: list[Short]) -> None:
        for student in one:
            first = judge(student, earlier, needed=NEEDED, standard_error=ERROR)
            second = judge(student, earlier[::-1], needed=NEEDED, standard_error=ERROR)
            assert first.promoted == second.promoted
