"""Refusing data that no model could be trained or judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.source import Array, Part
from edgemill.errors import DataError
from edgemill.recipe import Task

_MAX_CLASSES = 1 << 20


def checked_part(part: Part, task: Task, shape: tuple[int, ...] | None) -> Part:
    """A part with samples and labels in the types that a dataset stores.

    Samples: bool becomes uint8, wider floats become float32. Labels: int64 (N,) for
    classification, and 0 or 1 for anomaly, float32 (N, ...) for regression, none for unlabelled.

    Args:
        part: as the source gave it.
        task: what the labels must be.
        shape: sample shape of the training part, which all others must have.

    Raises:
        DataError: no samples, not numbers, lengths or shapes that differ, or labels that do not
            fit the task.
    """
    x = part.x
    if x.ndim <= 1 or not x.size:
        raise DataError(
            "There are no samples." if not x.size else "A sample is a single number.",
            where=part.where,
            expected="an array (samples, values...)",
            got=f"shape {x.shape}",
            remedy="reshape to (samples, 1) for a single value a sample" if x.size else None,
        )
    _numeric(x, "samples", part.where)
    if shape is not None and x.shape[1:] != shape:
        raise DataError(
            "The samples differ in shape from those of training.",
            where=part.where,
            expected=f"{shape}",
            got=f"{x.shape[1:]}",
        )
    return Part(_narrow(x), None if task is Task.UNLABELLED else _labels(part, task), part.where)


def check_finite(values: Array, positions: Array, split: SplitName, what: str, where: str) -> None:
    """Refuse NaN and infinity.

    Args:
        values: (N, ...) samples or labels of one split.
        positions: (N,) position of each in its source.
        split: the split they are in.
        what: `samples` or `labels`.
        where: file or function they came from.

    Raises:
        DataError: with the split, the counts and the first place.
    """
    if not np.issubdtype(values.dtype, np.floating):
        return
    flat = values.reshape(len(values), -1)
    bad = ~np.isfinite(flat)
    if not bad.any():
        return
    rows = np.flatnonzero(bad.any(axis=1))
    nans = int(np.isnan(flat[rows]).sum())
    place = np.unravel_index(int(np.flatnonzero(bad[rows[0]])[0]), values.shape[1:] or (1,))
    raise DataError(
        f"The {what} hold NaN or infinite values.",
        where=f"split {split}, from {where}",
        expected="finite numbers within the range of float32",
        got=f"{nans} NaN and {int(bad.sum()) - nans} infinite in {len(rows)} of {len(values)} samples; "
        f"first in sample {int(positions[rows[0]])} of the source, position {tuple(int(i) for i in place)}",
        remedy="clean or fill these values before handing the data over",
    )


def copies(x: Array, others: Sequence[Array]) -> int:
    """How many samples of `x` occur, value for value, in any of the others."""
    common = np.result_type(x.dtype, *(array.dtype for array in others))

    def marks(array: Array) -> Iterator[bytes]:
        return (hashlib.blake2b(row.astype(common).tobytes(), digest_size=16).digest() for row in array)

    known = {mark for array in others for mark in marks(array)}
    return sum(mark in known for mark in marks(x))


def _numeric(values: Array, what: str, where: str) -> None:
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"The {what} are not numbers.",
            where=where,
            expected="integers or floats",
            got=f"{values.dtype}{' (Python objects, or rows of several lengths)' if values.dtype == object else ''}",
        )


def _narrow(values: Array) -> Array:
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating) and values.dtype.itemsize > np.dtype(np.float32).itemsize:
        # Too large for float32 becomes infinite, which check_finite reports with its place.
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    return values


def _labels(part: Part, task: Task) -> Array:
    y = part.y
    if y is None:
        raise DataError(
            "The data has no labels.",
            where=part.where,
            expected=f"labels, for task {task}",
            remedy="add them, or use task: unlabelled",
        )
    if y.ndim == 0 or len(y) != len(part.x):
        raise DataError(
            "There are not as many labels as samples.",
            where=part.where,
            expected=f"{len(part.x)} labels",
            got=f"{0 if y.ndim == 0 else len(y)}",
        )
    _numeric(y, "labels", part.where)
    if task is Task.REGRESSION:
        return _narrow(y) if np.issubdtype(y.dtype, np.floating) else y.astype(np.float32)
    flat = y.reshape(len(y)) if y.size == len(y) else y
    if flat.ndim != 1:
        raise DataError(
            f"The labels of task {task} are class numbers.",
            where=part.where,
            expected=f"shape ({len(y)},)",
            got=f"shape {y.shape}",
            remedy="turn one-hot labels into class numbers with argmax(axis=-1)",
        )
    if np.issubdtype(flat.dtype, np.floating):
        raise DataError(
            f"The labels of task {task} are integers.",
            where=part.where,
            expected="int, 0 for the first class",
            got=f"{flat.dtype}, e.g. {flat[0]}",
            remedy="cast them to integers, or use task: regression",
        )
    classes = 2 if task is Task.ANOMALY else _MAX_CLASSES
    # Through float64, so that unsigned 64-bit numbers compare right.
    value = flat.astype(np.float64)
    wrong = np.flatnonzero((value < 0) | (value >= classes))
    if len(wrong):
        raise DataError(
            "A label is out of range.",
            where=part.where,
            expected="0 (normal) or 1 (anomalous)"
            if task is Task.ANOMALY
            else f"0 for the first class, counting up, below {classes}",
            got=f"{len(wrong)} such labels; the first is {value[wrong[0]]:.0f}, of sample {int(wrong[0])}",
            remedy="mark anomalous samples with 1, all others with 0"
            if task is Task.ANOMALY
            else "number the classes from 0",
        )
    return flat.astype(np.int64)
