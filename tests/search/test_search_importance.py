from pathlib import Path

import pytest

from edgemill.recipe import Goal
from edgemill.search.importance import ACCURACY_DROP, importances
from edgemill.search.study import Outcome, SearchStudy, Subject
from tests.support.search_objective import CHECKPOINT, plan


def searched(tmp_path: Path, trials: int, **weights: float):
    """A study whose latency depends on the knobs as the weights say."""
    search = plan(trials)
    study = SearchStudy(tmp_path, search, Subject(CHECKPOINT))
    while (trial := study.ask()) is not None:
        knobs = trial.knobs
        latency = 0.5 * 2 ** sum(weight * getattr(knobs, name) for name, weight in weights.items())
        study.tell(trial, Outcome({Goal.LATENCY: latency, Goal.COMPRESSED_BYTES: 0.5}, knobs.sparsity - 0.25))
    return {item.of: item for item in importances(search, study.history)}


def test_the_knob_that_decides_comes_first(tmp_path: Path) -> None:
    latency = searched(tmp_path, 1000, width=3.0, sparsity=0.3)["latency"]
    assert next(iter(latency.shares)) == "width"
    assert latency.shares["width"] > 0.8
    assert sum(latency.shares.values()) == pytest.approx(1)


def test_the_drop_has_its_own_importance(tmp_path: Path) -> None:
    assert next(iter(searched(tmp_path, 1000, width=1.0)[ACCURACY_DROP].shares)) == "sparsity"


def test_what_never_changes_has_no_shares_but_a_reason(tmp_path: Path) -> None:
    item = searched(tmp_path, 1000, width=1.0)["compressed_bytes"]
    assert item.shares == {}
    assert item.reason == "the same in all trials"


def test_too_few_trials_are_said(tmp_path: Path) -> None:
    item = searched(tmp_path, 5, width=1.0)["latency"]
    assert item.shares == {}
    assert item.reason is not None
    assert item.reason.startswith("too few trials: 5")


def test_the_same_trials_give_the_same_shares(tmp_path: Path) -> None:
    first, second = (searched(tmp_path / name, 20, width=2.0, clusters=0.01) for name in "ab")
    assert first == second
