"""Mean F1 over the classes, compared by a paired bootstrap of confusion counts."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from edgemill.validate.bootstrap import MIN_SAMPLES, bootstrap_sums
from edgemill.validate.faults import absent_classes
from edgemill.validate.pair import Checked, Pair, broken
from edgemill.validate.question import Question, needed_from_width
from edgemill.validate.scores import answers_of, binary_threshold, class_count
from edgemill.validate.unseen import UNSEEN, allow_unseen

METHOD = f"macro-F1, paired {{}}, {UNSEEN}"


def macro_f1(answers: NDArray[Any], labels: NDArray[Any], classes: int) -> float:
    """Mean over all classes of F1 = 2 TP / (label count + answer count); 0 for a class without both."""
    sums = np.asarray(_counts(labels, answers, answers, classes).sum(axis=0)).reshape(1, -1)
    return float(_f1(sums[:, :classes], sums[:, classes : 3 * classes])[0])


def check_macro_f1(question: Question, pair: Pair) -> Checked:
    """Bounds of the drop of macro-F1, by a paired bootstrap of the samples' confusion counts.

    `allow_unseen` counts errors in the rarest class, answered as the next rarest: they cost most.
    """
    classes = class_count(pair.baseline)
    if (absent := absent_classes(pair.truth, pair.baseline)) is not None:
        return broken(question, pair.n, absent)
    if pair.n < MIN_SAMPLES:
        return Checked(question.too_few(pair.n, MIN_SAMPLES))
    threshold = binary_threshold(pair.baseline)
    labels = pair.truth.reshape(-1)
    usual, ours = answers_of(pair.baseline, threshold), answers_of(pair.variant, threshold)
    features = _counts(labels, usual, ours, classes)
    drop = partial(_drop, classes=classes)
    plain = bootstrap_sums(features, drop, question.confidence, pair.seed, pair.resamples)
    rarest, other = np.argsort(np.bincount(labels, minlength=classes), kind="stable")[:2]
    sums = np.asarray(features.sum(axis=0)).reshape(1, -1)

    def with_one(baseline: int, variant: int) -> float:
        one = _counts(rarest[None], np.array([baseline]), np.array([variant]), classes)
        return float(drop(sums + one.toarray(), pair.n + 1)[0])

    harm = max(0.0, with_one(rarest, other) - plain.estimate), max(0.0, plain.estimate - with_one(other, rarest))
    numbers = allow_unseen(plain.numbers, harm, question.confidence)
    needed = needed_from_width(numbers, question.margin, pair.n, (plain.lower, plain.upper))
    return Checked(question.answer(numbers, pair.n, METHOD.format(plain.method), needed))


def _counts(labels: NDArray[Any], usual: NDArray[Any], ours: NDArray[Any], classes: int) -> Any:
    """Sparse (N, 5 K): of the label; of TP and answers of the baseline; of TP and answers of the variant."""
    n = len(labels)
    rows, columns = [np.arange(n)], [labels]
    for block, answers in ((1, usual), (3, ours)):
        right = np.flatnonzero(answers == labels)
        rows += [right, np.arange(n)]
        columns += [block * classes + answers[right], (block + 1) * classes + answers]
    places = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array((np.ones(len(places[0])), places), shape=(n, 5 * classes))


def _drop(sums: NDArray[np.float64], _n: float, classes: int) -> NDArray[np.float64]:
    labels = sums[:, :classes]
    return _f1(labels, sums[:, classes : 3 * classes]) - _f1(labels, sums[:, 3 * classes :])


def _f1(labels: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    right, answered = np.split(counts, 2, axis=1)
    return np.asarray((2 * right / np.maximum(labels + answered, 1.0)).mean(axis=1))
