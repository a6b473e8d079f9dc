"""Labels of task anomaly: 0 and 1, and any mixture of them in a split."""

from __future__ import annotations

import numpy as np
import pytest

from edgemill.data.check import checked_part
from edgemill.data.source import Part
from edgemill.errors import DataError
from edgemill.recipe import Task

X = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 0, 1], [0, 0, 0, 0], [True, False, True, False], [[0], [1], [1], [0]]],
    ids=["mixed", "normal only", "booleans", "column"],
)
def test_zero_and_one_are_taken(labels):
    part = checked_part(Part(X, np.array(labels), "here"), Task.ANOMALY, None)
    assert part.y.dtype == np.int64
    assert part.y.tolist() == np.array(labels).reshape(-1).astype(int).tolist()


@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [0, -1, 1, 0]])
def test_other_numbers_are_refused(labels):
    with pytest.raises(DataError) as refusal:
        checked_part(Part(X, np.array(labels), "here"), Task.ANOMALY, None)
    assert "0 (normal) or 1 (anomalous)" in str(refusal.value)


@pytest.mark.parametrize("labels", [None, [0.0, 1.0, 0.0, 1.0], [0, 1]])
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(DataError):
        checked_part(Part(X, None if labels is None else np.array(labels), "here"), Task.ANOMALY, None)
