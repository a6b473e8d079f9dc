"""Proof that two models answer alike: on random and on real inputs, relative to the range of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.data import Dataset, SplitName
from edgemill.errors import DataError
from edgemill.ingest.loaded import Predict

RANDOM = 16
REAL = 64
FREE = 32


@dataclass(frozen=True)
class Difference:
    """How far two models are apart.

    Attributes:
        absolute: largest absolute difference of an output value.
        relative: `absolute` over the range (largest minus smallest value) of the reference's outputs.
    """

    absolute: float
    relative: float


def probe(shape: tuple[int | None, ...], seed: int, vocabulary: int | None) -> NDArray[np.float32]:
    """Random inputs, float32 (RANDOM, *shape): standard normal, or integers 0..vocabulary-1; free sizes are FREE."""
    rng = np.random.default_rng(seed)
    size = (RANDOM, *(FREE if dim is None else dim for dim in shape))
    if vocabulary is not None:
        return rng.integers(0, vocabulary, size).astype(np.float32)
    return rng.standard_normal(size, dtype=np.float32)


def real_inputs(data: Path | None) -> NDArray[np.float32] | None:
    """The first calibration samples, preprocessed, float32 (up to REAL, *sample_shape)."""
    return None if data is None else Dataset(data).features(SplitName.CALIBRATION, 0, REAL)


def difference(reference: NDArray[np.float32], other: NDArray[np.float32]) -> Difference:
    """Compare outputs of the same inputs; infinite where shapes differ or a value is not finite."""
    if reference.shape != other.shape or not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return Difference(float("inf"), float("inf"))
    if reference.size == 0:
        return Difference(0.0, 0.0)
    absolute = float(np.abs(reference - other).max())
    extent = float(reference.max() - reference.min()) or float(np.abs(reference).max()) or 1.0
    return Difference(absolute, absolute / extent)


def worst(original: Predict, twin: Predict, batches: list[NDArray[np.float32]]) -> Difference:
    """The largest differences over several batches."""
    found = [difference(original(x), twin(x)) for x in batches]
    return Difference(max(d.absolute for d in found), max(d.relative for d in found))


def require_fit(data: Path, input_shape: tuple[int | None, ...], outputs: tuple[int | None, ...]) -> tuple[int, ...]:
    """Check that a dataset's samples and labels fit a model, and return the shape of a sample.

    Args:
        data: dataset folder.
        input_shape: of one sample, as the model wants it; None where the size is free.
        outputs: shape of the model's answer to one sample.

    Raises:
        DataError: they do not.
    """
    dataset = Dataset(data)
    found = dataset.sample_shape
    sizes = ", ".join(f"{name} ({count})" for name, count in dataset.sizes.items())
    if len(found) != len(input_shape) or any(a is not None and a != b for a, b in zip(input_shape, found, strict=True)):
        if (*found, 1) == input_shape:
            remedy = "the model wants a last axis of 1 (the channel): add it to the data, x[..., np.newaxis]"
        elif sorted(found) == sorted(d for d in input_shape if d is not None):
            remedy = "the axes are in another order: the model's order is what counts, transpose the data"
        else:
            remedy = "give the data on which the checkpoint was trained, or change data.options"
        raise DataError(
            "The samples do not fit the model.",
            where=f"splits {sizes}",
            expected=f"samples of shape {_text(input_shape)}",
            got=f"samples of shape {_text(found)}",
            remedy=remedy,
        )
    if dataset.classes is not None and len(outputs) == 1 and outputs[0] is not None:
        _require_classes(dataset, outputs[0])
    return found


def _require_classes(dataset: Dataset, outputs: int) -> None:
    for split in SplitName:
        labels = dataset.labels(split) if dataset.sizes.get(split, 0) else np.zeros(0, np.int64)
        if labels.ndim != 1 or labels.size == 0:
            continue
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= outputs:
            raise DataError(
                "The labels do not fit the model.",
                where=f"split {split}",
                expected=f"labels 0..{outputs - 1}, for {outputs} outputs",
                got=f"labels {low}..{high}",
                remedy="give the data on which the checkpoint was trained, or number the labels from 0",
            )


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if dim is None else str(dim) for dim in shape) + ")"
