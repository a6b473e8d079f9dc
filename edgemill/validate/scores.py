"""What outputs say: answers, scores of samples, and the score of a split; higher is better."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import DataError, InvariantError
from edgemill.recipe import Task

AGREEMENT_TOLERANCE = 0.1
"""UNLABELLED, outputs that are not class scores: largest relative L2 error that counts as the same answer."""

_NORM_FLOOR = 1e-3
_PROBABILITY_SLACK = 0.02
_ROWS = 1024

Array = NDArray[Any]


def count_non_finite(outputs: Array) -> int:
    """NaN and infinite elements."""
    return int(outputs.size - np.count_nonzero(np.isfinite(outputs)))


def flat_rows(array: Array) -> Array:
    """One row a sample, (N, m)."""
    return array.reshape(len(array), -1) if len(array) else array.reshape(0, max(1, int(np.prod(array.shape[1:]))))


def class_like(outputs: Array) -> bool:
    """Whether outputs are class probabilities: rows that sum to one, or single values in 0..1."""
    flat = flat_rows(outputs)
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


def class_count(outputs: Array) -> int:
    """Classes that a classifier knows: 2 for a single output."""
    return max(2, int(flat_rows(outputs).shape[1]))


def answers_of(outputs: Array, threshold: float = 0.5) -> NDArray[np.int64]:
    """Class answers (N,): argmax over the outputs of a sample, the first on a tie.

    A single output a sample is a binary classifier: class 1 above `threshold`.
    """
    flat = flat_rows(outputs)
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
    if task is Task.ANOMALY:
        raise InvariantError("Anomalies have no score a sample.", remedy="use anomaly_scores or split_score")
    if labels is None or len(labels) != len(outputs):
        raise DataError(
            "Labels do not fit the predictions.",
            expected=f"{len(outputs)} labels",
            got="none" if labels is None else f"{len(labels)}",
        )
    if task is Task.CLASSIFICATION:
        return _correct(outputs, labels, outputs if baseline is None else baseline)
    predicted, wanted = flat_rows(outputs).astype(np.float64), flat_rows(labels).astype(np.float64)
    if predicted.shape != wanted.shape:
        raise DataError(
            "The model's output has another shape than the labels.",
            expected=f"{labels.shape[1:]} values a sample",
            got=f"{outputs.shape[1:]}",
        )
    scores: NDArray[np.float64] = -np.abs(predicted - wanted).mean(axis=1)
    return scores


def _correct(outputs: Array, labels: Array, baseline: Array) -> NDArray[np.float64]:
    wanted = flat_rows(labels)
    classes = class_count(outputs)
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
    ours, theirs = flat_rows(outputs).astype(np.float64), flat_rows(baseline).astype(np.float64)
    norms = np.linalg.norm(theirs, axis=1)
    floor = _NORM_FLOOR * float(np.sqrt(np.mean(norms**2))) if norms.size else 0.0
    agree: NDArray[np.bool_] = np.linalg.norm(ours - theirs, axis=1) <= AGREEMENT_TOLERANCE * np.maximum(norms, floor)
    return agree.astype(np.float64)


def changed_answers(task: Task, outputs: Array, baseline: Array) -> NDArray[np.bool_]:
    """Which answers (N,) are not the baseline's, right or wrong.

    For real-valued answers: whose relative error exceeds `AGREEMENT_TOLERANCE`.
    """
    if task is Task.CLASSIFICATION:
        threshold = binary_threshold(baseline)
        return np.asarray(answers_of(outputs, threshold) != answers_of(baseline, threshold), dtype=np.bool_)
    return np.asarray(_agreement(outputs, baseline) == 0, dtype=np.bool_)


def flip_rate(task: Task, outputs: Array, baseline: Array) -> float:
    """Share of changed answers, see `changed_answers`."""
    return float(changed_answers(task, outputs, baseline).mean()) if len(outputs) else 0.0


def reconstructs(outputs: Array, sample_shape: tuple[int, ...]) -> bool:
    """Whether outputs are reconstructions of the model's input (more than one value, and of its shape)."""
    shape = tuple(size for size in outputs.shape[1:] if size != 1)
    return bool(shape) and shape == tuple(size for size in sample_shape if size != 1)


def anomaly_scores(outputs: Array, x: Array | None) -> NDArray[np.float64]:
    """How anomalous every sample is, float64 (N,), higher is more so.

    A single output value a sample is the score. Outputs of the input's shape are reconstructions:
    the score is their mean squared error.

    Args:
        outputs: float32 (N, ...).
        x: float32 (N, *sample_shape), the model's inputs as it got them; needed for reconstructions only.

    Raises:
        DataError: the outputs are neither.
    """
    flat = flat_rows(outputs)
    if flat.shape[1] == 1:
        return np.asarray(flat[:, 0], dtype=np.float64)
    if x is None or len(x) != len(outputs) or not reconstructs(outputs, x.shape[1:]):
        raise DataError(
            "The model's output is no anomaly score.",
            where="model output",
            expected="one value a sample, or a reconstruction of the input"
            + ("" if x is None else f" of shape {x.shape[1:]}"),
            got=f"shape {outputs.shape[1:]}",
            remedy="for a classifier use task: classification",
        )
    scores = np.empty(len(outputs))
    for start in range(0, len(outputs), _ROWS):
        part = slice(start, start + _ROWS)
        difference = flat[part].astype(np.float64) - flat_rows(x[part]).astype(np.float64)
        scores[part] = np.mean(difference**2, axis=1)
    return scores


def split_score(task: Task, outputs: Array, labels: Array | None, x: Array | None = None) -> float | None:
    """Score of a split, higher is better: mean of `score_samples`, and the area under the ROC curve for ANOMALY.

    None for UNLABELLED, for no samples, for outputs that are not finite, for labels that are missing or
    out of range (the gate names such faults), and for anomalies of one kind only.

    Args:
        task: what the outputs mean.
        outputs: float32 (N, ...).
        labels: as for `score_samples`; 0 and 1, (N,), for ANOMALY.
        x: float32 (N, *sample_shape); ANOMALY with reconstructions only (see `reconstructs`).

    Raises:
        DataError: labels or outputs do not fit the task.
    """
    if task is Task.UNLABELLED or not len(outputs) or count_non_finite(outputs):
        return None
    if labels is not None and not _usable(task, labels, 2 if task is Task.ANOMALY else class_count(outputs)):
        return None
    if task is not Task.ANOMALY:
        return float(score_samples(task, outputs, labels).mean())
    from edgemill.validate.auc import area_under_curve  # SciPy, for this task only

    scores = anomaly_scores(outputs, x)
    truth = anomaly_labels(labels, len(scores))
    return area_under_curve(scores, truth) if 0 < np.count_nonzero(truth) < len(truth) else None


def _usable(task: Task, labels: Array, classes: int) -> bool:
    if not labels.size or not np.isfinite(labels).all():
        return False
    return task is Task.REGRESSION or (int(labels.min()) >= 0 and int(labels.max()) < classes)


def anomaly_labels(labels: Array | None, n: int) -> NDArray[np.bool_]:
    """Which samples are anomalous, (N,).

    Raises:
        DataError: labels are missing or not 0 and 1.
    """
    flat = None if labels is None else labels.reshape(-1)
    if flat is None or len(flat) != n or not np.isin(flat, (0, 1)).all():
        raise DataError(
            "Labels of an anomaly detector are 0 (normal) and 1 (anomalous), one a sample.",
            expected=f"{n} labels",
            got="none" if flat is None else f"{len(flat)}, values {np.unique(flat)[:5].tolist()}",
        )
    return np.asarray(flat == 1, dtype=np.bool_)
