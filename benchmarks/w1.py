"""Workload W1 for benchmarks: the splits of Fashion-MNIST on which the example's checkpoint is judged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.common import context, input_file
from edgemill.data import LoadSettings, load
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.recipe import Data, Preprocess, Split, Task
from edgemill.step import InputFile

_SEED = 7


def w1_data(work: Path, folder: Path, limits: Mapping[SplitName, int] | None = None) -> InputFile:
    """Load the splits.

    Args:
        work: for what is written.
        folder: with the four IDX files.
        limits: of the named splits only the first so many samples.
    """
    source = Data(
        source="idx",
        path=str(folder),
        preprocess=Preprocess(scale=255, mean=0.2860, std=0.3530),
        split=Split(validation=5000, calibration=300, calibration_within_validation=True, seed=20261122),
    )
    made = load.run(LoadSettings(data=source, task=Task.CLASSIFICATION), {}, context(work / "data", _SEED, quiet=True))
    path = made.files["data"].path
    if not limits:
        return input_file(path, "dataset")
    whole, small = Dataset(path), work / "small"
    small.mkdir()
    write_dataset(
        small,
        {split: whole.raw(split)[: limits.get(split)] for split in SplitName},
        {split: whole.labels(split)[: limits.get(split)] for split in SplitName},
        whole.preprocess,
    )
    return input_file(small, "dataset")
