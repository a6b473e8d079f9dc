"""A dataset artifact: a folder of arrays in four disjoint splits, read without copying."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import DataError
from edgemill.recipe import Preprocess

MANIFEST = "dataset.json"


class SplitName(StrEnum):
    """The splits; no sample is in two of them (unless the recipe puts calibration inside validation)."""

    TRAIN = "train"
    VALIDATION = "validation"
    CALIBRATION = "calibration"
    TEST = "test"


class Dataset:
    """Reader of a dataset folder written by `write_dataset`.

    Samples are stored as the source has them (e.g. uint8) and preprocessed on reading.
    """

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        self._folder = folder
        self.preprocess = Preprocess.model_validate(manifest["preprocess"])
        self.sizes: dict[str, int] = manifest["sizes"]
        self.classes: int | None = manifest["classes"]
        self.sample_shape: tuple[int, ...] = tuple(manifest["sample_shape"])

    def raw(self, split: SplitName) -> NDArray[np.generic]:
        """Stored samples, (N, *sample_shape), memory-mapped, not preprocessed."""
        loaded: NDArray[np.generic] = np.load(self._folder / f"x_{split}.npy", mmap_mode="r", allow_pickle=False)
        return loaded

    def features(self, split: SplitName, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Model inputs, float32 (N, *sample_shape), of the samples [start, stop) of a split."""
        return self.prepare(self.raw(split)[start:stop])

    def prepare(self, stored: NDArray[np.generic]) -> NDArray[np.float32]:
        """Model inputs, float32, of samples as they are stored."""
        rule = self.preprocess
        x = stored.astype(np.float32)
        return ((x / np.float32(rule.scale)) - np.float32(rule.mean)) / np.float32(rule.std)

    def labels(self, split: SplitName) -> NDArray[np.generic]:
        """Labels of a split: int64 (N,) for classification, float32 (N, ...) for regression.

        Raises:
            DataError: the dataset has no labels.
        """
        if not self.labelled:
            raise DataError("The dataset has no labels.", where=f"split {split}", remedy="use task: unlabelled")
        loaded: NDArray[np.generic] = np.load(self._folder / f"y_{split}.npy", allow_pickle=False)
        return loaded

    @cached_property
    def labelled(self) -> bool:
        """Whether labels are stored."""
        return (self._folder / f"y_{SplitName.TEST}.npy").exists()


def write_dataset(
    folder: Path,
    samples: dict[SplitName, NDArray[np.generic]],
    labels: dict[SplitName, NDArray[np.generic]] | None,
    preprocess: Preprocess,
) -> None:
    """Write a dataset folder.

    Args:
        folder: existing, empty.
        samples: for every split, (N, *sample_shape).
        labels: for every split, (N, ...), or None where the task has none.
        preprocess: how stored values become model inputs.
    """
    classes = None
    for split, x in samples.items():
        np.save(folder / f"x_{split}.npy", np.ascontiguousarray(x), allow_pickle=False)
    for split, y in (labels or {}).items():
        np.save(folder / f"y_{split}.npy", np.ascontiguousarray(y), allow_pickle=False)
    if labels is not None and all(np.issubdtype(y.dtype, np.integer) for y in labels.values()):
        classes = int(max(y.max() for y in labels.values() if y.size)) + 1
    manifest = {
        "preprocess": preprocess.model_dump(),
        "sizes": {str(split): len(x) for split, x in samples.items()},
        "classes": classes,
        "sample_shape": list(samples[SplitName.TRAIN].shape[1:]),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1), encoding="utf-8")
