"""How alike two models answer, and how well: on validation data, through the runtimes that ship."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import ToolchainError
from edgemill.recipe import Task
from edgemill.validate.scores import reconstructs, split_score

_CLASS_SCORES = 2
# Converting changes roundings, not answers: a share below this means that the conversion is wrong.
_BROKEN = 0.9
_BROKEN_ERROR = 0.25


def compare(answers: NDArray[np.float32], reference: NDArray[np.float32], task: Task) -> dict[str, float]:
    """Difference between the answers of a converted model and those of its source.

    Returns:
        `argmax_agreement` (fraction of samples, higher is better) for class scores;
        `relative_error` (mean absolute difference over the standard deviation of the reference,
        lower is better) always.
    """
    spread = float(reference.std()) or 1.0
    found = {"relative_error": float(np.abs(answers - reference).mean()) / spread}
    if is_class_scores(reference, task):
        found["argmax_agreement"] = float((answers.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return found


def is_class_scores(answers: NDArray[np.float32], task: Task) -> bool:
    """Whether the largest of several answers is what counts."""
    return task is Task.CLASSIFICATION and answers.ndim == _CLASS_SCORES and answers.shape[1] > 1


def score(answers: NDArray[np.float32], data: Dataset, task: Task) -> float | None:
    """Validation score, higher is better: accuracy, negated mean absolute error, or area under the ROC curve.

    None without labels, or with anomalies of one kind only.
    """
    if task is Task.UNLABELLED or not data.labelled:
        return None
    labels = data.labels(SplitName.VALIDATION)
    if task is Task.ANOMALY:
        x = data.features(SplitName.VALIDATION) if reconstructs(answers, data.sample_shape) else None
        return split_score(task, answers, labels, x)
    if is_class_scores(answers, task):
        return float((answers.argmax(axis=1) == labels).mean())
    return -float(np.abs(answers - labels.astype(np.float32).reshape(answers.shape)).mean())


def check(found: dict[str, float], name: str) -> dict[str, Any]:
    """Pass on what `compare` found.

    Raises:
        ToolchainError: the converted model answers differently, which rounding cannot explain.
    """
    agreement = found.get("argmax_agreement")
    broken = found["relative_error"] > _BROKEN_ERROR if agreement is None else agreement < _BROKEN
    if broken:
        raise ToolchainError(
            "The exported model does not answer like the trained one.",
            where=name,
            expected=f"argmax agreement of at least {_BROKEN}, or a relative error of at most {_BROKEN_ERROR}",
            got=str(found),
            remedy="look at quantize.qat's facts for layers that stayed float; please report the model",
        )
    return dict(found)
