"""The named ways in which predictions or labels are broken beyond any statistics. Each one is a FAIL."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Frozen
from edgemill.recipe import Task
from edgemill.validate.converter_faults import class_order, missing_dequantization, rescaled
from edgemill.validate.scores import answers_of, binary_threshold, class_count, class_like, count_non_finite, flat_rows

_COLLAPSE_MINORITY = 5

Array = NDArray[Any]


class Fault(StrEnum):
    """What is broken."""

    NON_FINITE = "non_finite"
    """NaN or infinity in the outputs."""
    CONSTANT = "constant"
    """The same answer whatever the input, where the baseline's answers differ."""
    WRONG_SHAPE = "wrong_shape"
    """Another output shape than the baseline's, or another number of samples."""
    CLASS_ORDER = "class_order"
    """The classes come out in another order, as some converters and label files make them."""
    NOT_DEQUANTIZED = "not_dequantized"
    """The outputs are the integers of a quantized output, without its scale and zero point."""
    RESCALED = "rescaled"
    """The outputs are the baseline's times a factor plus an offset."""
    LABELS_MISSING = "labels_missing"
    """Samples of the split have no label."""
    LABEL_OUT_OF_RANGE = "label_out_of_range"
    """A label is not one of the model's classes."""
    LABELS_CONSTANT = "labels_constant"
    """All targets are the same, so that a score relative to their spread is undefined."""
    CLASS_WITHOUT_SAMPLES = "class_without_samples"
    """The split has no sample of a class that a check must speak about."""
    SLICE_UNNAMED = "slice_unnamed"
    """The slice function gave no name for a sample."""
    METRIC_UNDEFINED = "metric_undefined"
    """The recipe's own metric is not a finite number for the variant."""


class Broken(Frozen):
    """A fault with its details."""

    fault: Fault
    text: str

    @property
    def reason(self) -> str:
        """For a verdict."""
        return f"{self.fault}: {self.text}"


def find_fault(outputs: Array, baseline: Array, task: Task) -> Broken | None:
    """What makes these predictions unusable, or None.

    Args:
        outputs: float32 (N, ...) of the variant.
        baseline: float32 (N, ...) of the baseline on the same samples.
        task: what the outputs mean.
    """
    if len(outputs) != len(baseline) or flat_rows(outputs).shape != flat_rows(baseline).shape:
        return Broken(fault=Fault.WRONG_SHAPE, text=f"output shape {outputs.shape}, the baseline's is {baseline.shape}")
    bad = count_non_finite(outputs)
    if bad:
        rows = int(np.count_nonzero(~np.isfinite(flat_rows(outputs)).all(axis=1)))
        return Broken(
            fault=Fault.NON_FINITE,
            text=f"{bad} NaN or infinite output value{'s' if bad > 1 else ''} in {rows} of {len(outputs)} samples",
        )
    if _same_rows(outputs) and not _same_rows(baseline):
        return Broken(fault=Fault.CONSTANT, text=f"the same output for all {len(outputs)} samples; {_UNSCALED_INPUT}")
    return _distorted(flat_rows(outputs), flat_rows(baseline), task)


def _distorted(outputs: Array, baseline: Array, task: Task) -> Broken | None:
    if (text := missing_dequantization(outputs, baseline)) is not None:
        return Broken(fault=Fault.NOT_DEQUANTIZED, text=text)
    if task is Task.CLASSIFICATION or (task is Task.UNLABELLED and class_like(baseline)):
        return _broken_answers(outputs, baseline)
    single_score = task is Task.ANOMALY and baseline.shape[1] == 1  # its AUC knows no scale
    if not single_score and (text := rescaled(outputs, baseline)) is not None:
        return Broken(fault=Fault.RESCALED, text=text)
    return None


_UNSCALED_INPUT = (
    "it looks as if the input never arrived, e.g. floats fed to an int8 input without its scale and zero point"
)


def _broken_answers(outputs: Array, baseline: Array) -> Broken | None:
    threshold = binary_threshold(baseline)
    answers, usual = answers_of(outputs, threshold), answers_of(baseline, threshold)
    minority = len(usual) - int(np.bincount(usual).max(initial=0))
    if len(np.unique(answers)) == 1 and minority >= _COLLAPSE_MINORITY:
        return Broken(
            fault=Fault.CONSTANT,
            text=f"class {int(answers[0])} for all {len(answers)} samples, the baseline gives "
            f"{len(np.unique(usual))} classes; {_UNSCALED_INPUT}",
        )
    text = class_order(answers, usual, class_count(baseline))
    return None if text is None else Broken(fault=Fault.CLASS_ORDER, text=text)


def find_label_fault(labels: Array | None, baseline: Array, task: Task) -> Broken | None:
    """What makes the labels of a split unusable, or None. Their type and shape are checked by `score_samples`.

    A label that is NaN or negative counts as missing.

    Args:
        labels: (N, ...) of the split; None for UNLABELLED.
        baseline: float32 (N, ...), outputs of the baseline.
        task: what the labels mean.
    """
    if labels is None or len(labels) != len(baseline):
        return None
    missing = unlabelled_samples(labels, task)
    if missing.any():
        return Broken(
            fault=Fault.LABELS_MISSING,
            text=f"{int(missing.sum())} of {len(labels)} samples have no label (NaN or negative), "
            f"the first is sample {int(np.argmax(missing))}",
        )
    if task is Task.REGRESSION or not len(labels):
        return None
    classes = 2 if task is Task.ANOMALY else class_count(baseline)
    wrong = flat_rows(labels) >= classes
    if wrong.any():
        return Broken(
            fault=Fault.LABEL_OUT_OF_RANGE,
            text=f"{int(wrong.sum())} labels are not in 0..{classes - 1}, the largest is {int(labels.max())}",
        )
    if task is Task.ANOMALY and len(np.unique(labels)) == 1:
        kind = "anomalous" if labels.reshape(-1)[0] == 0 else "normal"
        return Broken(fault=Fault.CLASS_WITHOUT_SAMPLES, text=f"the split has no {kind} sample")
    return None


def unlabelled_samples(labels: Array, task: Task) -> NDArray[np.bool_]:
    """Which samples have no label, (N,): NaN, or negative where labels are class numbers."""
    flat = flat_rows(labels)
    missing = np.isnan(flat) if np.issubdtype(flat.dtype, np.floating) else np.zeros(flat.shape, dtype=np.bool_)
    if task is not Task.REGRESSION:
        missing = missing | (flat < 0)
    return np.asarray(missing.any(axis=1), dtype=np.bool_)


def absent_classes(labels: Array, baseline: Array) -> Broken | None:
    """The classes that the model knows and of which the split has no sample."""
    counts = np.bincount(labels.reshape(-1), minlength=class_count(baseline))
    absent = np.flatnonzero(counts == 0)
    if not len(absent):
        return None
    names = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
    return Broken(
        fault=Fault.CLASS_WITHOUT_SAMPLES,
        text=f"the split has no sample of {len(absent)} of {len(counts)} classes ({names}), "
        "so nothing can be said of them",
    )


def _same_rows(outputs: Array) -> bool:
    flat = flat_rows(outputs)
    return len(flat) > 1 and bool(np.all(flat == flat[:1]))
