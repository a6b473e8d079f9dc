"""Checks of every class and every slice."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgemill.errors import DataError, RecipeError
from edgemill.validate.pair import Pair
from edgemill.validate.verdict import Decision
from tests.validate.pairs import check, one_hot, pair


def lossy(n: int, lost: dict[int, int], classes: int = 4) -> Pair:
    labels = np.arange(n) % classes
    answers = labels.copy()
    for label, count in lost.items():
        members = np.flatnonzero(labels == label)
        answers[members[:count]] = (label + 1) % classes
    return pair(one_hot(labels, classes), one_hot(answers, classes), labels)


def test_every_class_must_pass():
    fine = check(lossy(8000, {0: 10, 1: 15}), classes={"max_drop": 0.02})
    assert fine.verdict.passed
    assert [group.verdict for group in fine.groups] == [Decision.PASS] * 4
    assert fine.verdict.upper == max(group.upper for group in fine.groups)
    assert (fine.groups[1].lost, fine.groups[1].won, fine.groups[1].n) == (15, 0, 2000)
    bad = check(lossy(8000, {0: 10, 2: 100}), classes={"max_drop": 0.02})
    assert bad.verdict.verdict is Decision.FAIL
    assert [group.verdict for group in bad.groups].count(Decision.FAIL) == 1
    assert "1 of 4 groups lose more" in bad.verdict.reason
    assert "2 (drop 5" in bad.verdict.reason
    unsure = check(lossy(8000, {3: 35}), classes={"max_drop": 0.02})
    assert unsure.verdict.verdict is Decision.INCONCLUSIVE
    assert unsure.verdict.samples_needed > 8000


def test_one_class_of_many_fails_only_with_the_correction():
    """40 of 1000 lost is beyond a margin of 2.9 points by itself, but not as the worst of twenty classes."""
    alone, among = lossy(2000, {0: 40}, classes=2), lossy(20_000, {0: 40}, classes=20)
    by_itself = check(alone, classes={"max_drop": 0.029})
    corrected = check(among, classes={"max_drop": 0.029})
    assert by_itself.groups[0].lower == corrected.groups[0].lower > 0.029
    assert corrected.groups[0].verdict is Decision.INCONCLUSIVE
    assert corrected.verdict.verdict is Decision.INCONCLUSIVE
    assert corrected.verdict.lower < 0.029


def test_a_lossless_model_seldom_fails_in_any_of_many_classes():
    rng = np.random.default_rng(4)
    failed = 0
    for _ in range(60):
        labels = np.arange(3000) % 15
        answers = np.where(rng.random(3000) < 0.05, (labels + 1) % 15, labels)
        found = check(pair(one_hot(labels, 15), one_hot(answers, 15), labels), classes={"max_drop": 0.05})
        failed += found.verdict.verdict is Decision.FAIL
    assert failed / 60 <= 0.1


def test_slices_by_a_function_of_the_users(own):
    function = own("by_light", "def f(x, labels):\n    return np.where(x[:, 0] > 100, 'day', 'night')")
    labels = np.arange(4000) % 2
    x = np.stack([np.arange(4000) // 10, np.zeros(4000)], axis=1).astype(np.uint8)
    night = x[:, 0] <= 100
    answers = np.where(night & (np.arange(4000) % 10 == 0), 1 - labels, labels)
    found = check(
        pair(one_hot(labels, 2), one_hot(answers, 2), labels, samples=x),
        slices={"function": function, "max_drop": 0.02},
    )
    assert [(group.gate, group.name, group.n) for group in found.groups] == [
        ("slices", "day", int((~night).sum())),
        ("slices", "night", int(night.sum())),
    ]
    assert [group.verdict for group in found.groups] == [Decision.PASS, Decision.FAIL]
    assert found.verdict.verdict is Decision.FAIL


@pytest.mark.parametrize("missing", ["None", "''", "float('nan')", "' '"])
def test_a_sample_without_a_slice_is_named(own, missing):
    function = own("unnamed", f"def f(x, labels):\n    return ['a'] * 98 + [{missing}] * 2")
    drawn = pair(one_hot(np.zeros(100, int), 2), one_hot(np.zeros(100, int), 2), np.zeros(100, int), samples=None)
    found = check(drawn, slices={"function": function, "max_drop": 0.1})
    assert found.fault == "slice_unnamed"
    assert found.verdict.verdict is Decision.FAIL
    assert "2 of 100 samples have no slice, the first is sample 98" in found.verdict.reason


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("def f(x, labels):\n    return ['a']", DataError),
        ("def f(x, labels):\n    return 'a' * 2000", DataError),
        ("def f(x, labels):\n    return None", DataError),
        ("def f(x, labels):\n    return np.arange(2000)", DataError),
        ("def f(x, labels):\n    raise KeyError('k')", RecipeError),
        ("def f(x):\n    return []", RecipeError),
        ("f = 3", RecipeError),
        ("raise OSError", RecipeError),
    ],
)
def test_slice_functions_that_are_wrong(own, body, error):
    labels = np.zeros(2000, int)
    drawn = pair(one_hot(labels, 2), one_hot(labels, 2), labels)
    with pytest.raises(error, match=r"slice|own function|no function"):
        check(drawn, slices={"function": own("wrong", body), "max_drop": 0.1})
    assert "wrong" not in sys.modules


def test_a_changed_function_is_read_again(own):
    labels = np.zeros(100, int)
    drawn = pair(one_hot(labels, 2), one_hot(labels, 2), labels)
    names = []
    for name in ("old", "newer"):
        function = own("changing", f"def f(x, labels):\n    return ['{name}'] * 100")
        names.append(check(drawn, slices={"function": function, "max_drop": 0.1}).groups[0].name)
    assert names == ["old", "newer"]
