"""Per-sample scores of predictions, higher is better, and the named ways in which predictions are broken."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Frozen
from edgemill.errors import DataError
from edgemill.recipe import Task

AGREEMENT_TOLERANCE = 0.1
"""UNLABELLED, outputs that are not class scores: largest relative L2 error that counts as the same answer."""

_NORM_FLOOR = 1e-3
_PROBABILITY_SLACK = 0.02
_COLLAPSE_MINORITY = 5

Array = NDArray[Any]


class Fault(StrEnum):
    """A way in which predictions are broken beyond any statistics. Each one is a FAIL."""

    NON_FINITE = "non_finite"
    """NaN or infinity in the outputs."""
    CONSTANT = "constant"
    """The same answer whatever the input, where the baseline's answers differ."""
    WRONG_SHAPE = "wrong_shape"
    """Another output shape than the baseline's, or another number of samples."""


class Broken(Frozen):
    """A fault with its details."""

    fault: Fault
    text: str


def count_non_finite(outputs: Array) -> int:
    """NaN and infinite elements."""
    return int(outputs.size - np.count_nonzero(np.isfinite(outputs)))


def find_fault(outputs: Array, baseline: Array, task: Task) -> Broken | None:
    """What makes these predictions unusable, or None.

    Args:
        outputs: float32 (N, ...) of the variant.
        baseline: float32 (N, ...) of the baseline on the same samples.
        task: what the outputs mean.
    """
    if len(outputs) != len(baseline) or _flat(outputs).shape != _flat(baseline).shape:
        return Broken(fault=Fault.WRONG_SHAPE, text=f"output shape {outputs.shape}, the baseline's is {baseline.shape}")
    bad = count_non_finite(outputs)
    if bad:
        rows = int(np.count_nonzero(~np.isfinite(_flat(outputs)).all(axis=1)))
        return Broken(
            fault=Fault.NON_FINITE,
            text=f"{bad} NaN or infinite output value{'s' if bad > 1 else ''} in {rows} of {len(outputs)} samples",
        )
    if _same_rows(outputs) and not _same_rows(baseline):
        return Broken(fault=Fault.CONSTANT, text=f"the same output for all {len(outputs)} samples")
    if task is Task.CLASSIFICATION or (task is Task.UNLABELLED and class_like(baseline)):
        threshold = binary_threshold(baseline)
        answers, usual = answers_of(outputs, threshold), answers_of(baseline, threshold)
        minority = len(usual) - int(np.bincount(usual).max(initial=0))
        if len(np.unique(answers)) == 1 and minority >= _COLLAPSE_MINORITY:
            return Broken(
                fault=Fault.CONSTANT,
                text=f"class {int(answers[0])} for all {len(answers)} samples, the baseline gives "
                f"{len(np.unique(usual))} classes",
            )
    return None


def class_like(outputs: Array) -> bool:
    """Whether outputs are class probabilities: rows that sum to one, or single values in 0..1."""
    flat = _flat(outputs)
    if flat.size == 0 or flat.min() < -_PROBABILITY_SLACK or flat.max() > 1 + _PROBABILITY_SLACK:
        return False
    return flat.shape[1] == 1 or bool(np.all(np.abs(flat.sum(axis=1) - 1) <= _PROBABILITY_SLACK))


def binary_threshold(outputs: Array) -> float:
    """Threshold between class 0 and 1 of a single-output model: 0.5 for probabilities, 0 for logits.

    Take it once from the baseline's outputs and use it for the variants too. Outputs that all lie
    in 0..1 are taken for probabilities.
    """
    if outputs.size and (outputs.min() < -_PROBABILITY_SLACK or outputs.max() > 1 + _PROBABILITY_SLACK):
        return 0.0
    return 0.5


def answers_of(outputs: Array, threshold: float = 0.5) -> NDArray[np.int64]:
    """Class answers (N,): argmax over the outputs of a sample, the first on a tie.

    A single output a sample is a binary classifier: class 1 above `threshold`.
    """
    flat = _flat(outputs)
    if flat.shape[1] == 1:
        return np.asarray(flat[:, 0] > threshold, dtype=np.int64)
    return np.asarray(np.argmax(flat, axis=1), dtype=np.int64)


def score_samples(
    task: Task, outputs: Array, labels: Array | None, baseline: Array | None = None
) -> NDArray[np.float64]:
    """Score of every sample, float64 (N,), higher is better.

    - CLASSIFICATION: 1 where the answer (see `answers_of`) is the label, else 0.
    - REGRESSION: minus the absolute error, averaged over the elements of a sample.
    - UNLABELLED: 1 where the answer is the baseline's. Answers are compared by class where the
      baseline's outputs are class probabilities (`class_like`); else two answers are the same when
      their L2 distance is at most `AGREEMENT_TOLERANCE` of the norm of the baseline's output
      (of 1/1000 of the RMS norm over all samples where the output is smaller than that).

    Args:
        task: what the outputs mean.
        outputs: float32 (N, ...).
        labels: int (N,) for classification, float (N, ...) for regression, unused otherwise.
        baseline: outputs of the baseline on the same samples; needed for UNLABELLED, and sets the
            threshold of a single-output classifier.

    Raises:
        DataError: labels are missing or do not fit the outputs.
    """
    if task is Task.UNLABELLED:
        return _agreement(outputs, outputs if baseline is None else baseline)
    if labels is None or len(labels) != len(outputs):
        raise DataError(
            "Labels do not fit the predictions.",
            expected=f"{len(outputs)} labels",
            got="none" if labels is None else f"{len(labels)}",
        )
    if task is Task.CLASSIFICATION:
        return _correct(outputs, labels, outputs if baseline is None else baseline)
    predicted, wanted = _flat(outputs).astype(np.float64), _flat(labels).astype(np.float64)
    if predicted.shape != wanted.shape:
        raise DataError(
            "The model's output has another shape than the labels.",
            expected=f"{labels.shape[1:]} values a sample",
            got=f"{outputs.shape[1:]}",
        )
    scores: NDArray[np.float64] = -np.abs(predicted - wanted).mean(axis=1)
    return scores


def _correct(outputs: Array, labels: Array, baseline: Array) -> NDArray[np.float64]:
    wanted = _flat(labels)
    classes = max(2, _flat(outputs).shape[1])
    if wanted.shape[1] != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            "Labels of a classification are one integer a sample.",
            expected="(N,) integers",
            got=f"{labels.dtype} {labels.shape}",
        )
    if wanted.size and (wanted.min() < 0 or wanted.max() >= classes):
        raise DataError(
            "A label lies outside the classes that the model knows.",
            expected=f"0..{classes - 1}",
            got=f"{int(wanted.min())}..{int(wanted.max())}",
        )
    return np.asarray(answers_of(outputs, binary_threshold(baseline)) == wanted[:, 0], dtype=np.float64)


def _agreement(outputs: Array, baseline: Array) -> NDArray[np.float64]:
    if class_like(baseline):
        threshold = binary_threshold(baseline)
        return np.asarray(answers_of(outputs, threshold) == answers_of(baseline, threshold), dtype=np.float64)
    ours, theirs = _flat(outputs).astype(np.float64), _flat(baseline).astype(np.float64)
    norms = np.linalg.norm(theirs, axis=1)
    floor = _NORM_FLOOR * float(np.sqrt(np.mean(norms**2))) if norms.size else 0.0
    agree: NDArray[np.bool_] = np.linalg.norm(ours - theirs, axis=1) <= AGREEMENT_TOLERANCE * np.maximum(norms, floor)
    return agree.astype(np.float64)


def flip_rate(task: Task, outputs: Array, baseline: Array) -> float:
    """Share of samples whose answer is not the baseline's, right or wrong.

    For real-valued answers: whose relative error exceeds `AGREEMENT_TOLERANCE`.
    """
    if len(outputs) == 0:
        return 0.0
    if task is Task.CLASSIFICATION:
        threshold = binary_threshold(baseline)
        return float(np.mean(answers_of(outputs, threshold) != answers_of(baseline, threshold)))
    return float(1.0 - _agreement(outputs, baseline).mean())


def _flat(array: Array) -> Array:
    return array.reshape(len(array), -1) if len(array) else array.reshape(0, max(1, int(np.prod(array.shape[1:]))))


def _same_rows(outputs: Array) -> bool:
    flat = _flat(outputs)
    return len(flat) > 1 and bool(np.all(flat == flat[:1]))
