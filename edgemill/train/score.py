"""The validation score that selects epochs: higher is better for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Task
from edgemill.train import WITHOUT_LABELS
from edgemill.train.teacher import Teacher

_CHUNK = 512

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _chunks(data: Dataset, split: SplitName) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, data.sizes[split], _CHUNK):
        stop = min(start + _CHUNK, data.sizes[split])
        yield slice(start, stop), data.features(split, start, stop)


def predictions(predict: Predict, data: Dataset, split: SplitName = SplitName.VALIDATION) -> NDArray[np.float32]:
    """Answers to all samples of a split, float32 (N, ...)."""
    return np.concatenate([np.asarray(predict(x)) for _, x in _chunks(data, split)])


def reference(
    teacher: Teacher | None, labels: NDArray[np.generic] | None, values: bool, data: Dataset
) -> NDArray[np.generic]:
    """What validation answers are compared with: the labels, or without them the teacher's answers."""
    if labels is not None:
        return labels
    assert teacher is not None, "Objective requires a teacher where there are no labels"
    answers = predictions(teacher.outputs if values else teacher.logits, data)
    return answers if values else answers.argmax(axis=-1)


def score(answers: NDArray[np.float32], expected: NDArray[np.generic], values: bool) -> float:
    """Accuracy (or agreement) as a fraction; with `values` the negated mean absolute error.

    NaN answers score minus infinity.
    """
    if not np.isfinite(answers).all():
        return float("-inf")
    if values:
        return -float(np.abs(answers - expected.reshape(answers.shape).astype(np.float32)).mean())
    return float((answers.argmax(axis=-1) == expected).mean())


def teacher_score(teacher: Teacher, data: Dataset, task: Task, values: bool) -> float:
    """The teacher's own validation score; 1 (or error 0) by definition where there are no labels."""
    labels = None if task in WITHOUT_LABELS else data.labels(SplitName.VALIDATION)
    answers = predictions(teacher.outputs if values else teacher.logits, data)
    return score(answers, reference(teacher, labels, values, data), values)
