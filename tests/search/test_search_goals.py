"""Which goals a search has on this machine, by its targets."""

import platform

import pytest

from edgemill.errors import RecipeError
from edgemill.recipe import Goal
from edgemill.search.goals import UNTIMED_GOALS, USUAL_GOALS, goals_of, tells_time
from edgemill.targets import load_target

GATEWAY, BOARD, MICRO, CONVERTED = map(
    load_target, ("x86-64-litert", "raspberry-pi-5", "cortex-m4-bare-c", "jetson-tensorrt")
)


@pytest.fixture(autouse=True)
def x86(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_times_are_a_goal_where_a_target_has_them():
    assert goals_of(None, [GATEWAY, MICRO, BOARD]) == USUAL_GOALS
    assert goals_of((Goal.ENERGY,), [GATEWAY, MICRO]) == (Goal.ENERGY,)


@pytest.mark.parametrize("target", [MICRO, BOARD], ids=lambda target: target.name)
def test_else_multiplications_take_their_place(target):
    assert not tells_time(target)
    assert goals_of(None, [target, CONVERTED]) == UNTIMED_GOALS
    assert goals_of((Goal.COMPRESSED_BYTES,), [target]) == (Goal.COMPRESSED_BYTES,)
    with pytest.raises(RecipeError, match=r"search.goals=\[macs, compressed_bytes\]"):
        goals_of((Goal.LATENCY, Goal.COMPRESSED_BYTES), [target])


def test_targets_that_nothing_runs_cannot_be_searched_for():
    with pytest.raises(RecipeError, match="no trial could be judged"):
        goals_of(None, [CONVERTED])
