"""Workload W1 laid out: what each peer may use, and the test split, which only the judge sees."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import context, input_file
from benchmarks.w1 import w1_data
from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Checkpoint
from edgemill.step import InputFile

SEED = 7


@dataclass(frozen=True)
class Workload:
    """W1 on disk.

    Attributes:
        inputs: folder that a peer gets, as `benchmarks/peers/runner.py` describes it.
        dataset: all splits, the test split for the judge alone.
    """

    inputs: Path
    dataset: InputFile

    @property
    def teacher(self) -> Path:
        """The checkpoint as fp32 ONNX."""
        return self.inputs / "teacher.onnx"

    @property
    def data(self) -> Dataset:
        """Reader of the splits."""
        return Dataset(self.dataset.path)


def prepare(work: Path, checkpoint: Path, data_folder: Path, test_samples: int | None = None) -> Workload:
    """Split the data, export the checkpoint with Edgemill's own ingest, and write what the peers get.

    Args:
        work: existing folder for all of it.
        checkpoint: Keras 2 file.
        data_folder: with the four IDX files of Fashion-MNIST.
        test_samples: of the 10,000 test samples only the first so many.
    """
    # Imports TensorFlow.
    from edgemill.ingest import checkpoint as ingest

    data = w1_data(work, data_folder, {SplitName.TEST: test_samples} if test_samples else None)
    given = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), given, context(work / "ingest", SEED, quiet=True)).files
    inputs = work / "inputs"
    inputs.mkdir()
    shutil.copyfile(base["onnx"].path, inputs / "teacher.onnx")
    shutil.copyfile(checkpoint, inputs / "teacher.keras")
    splits = Dataset(data.path)
    for split in (SplitName.TRAIN, SplitName.VALIDATION, SplitName.CALIBRATION):
        np.save(inputs / f"{split}_x.npy", splits.features(split), allow_pickle=False)
        np.save(inputs / f"{split}_y.npy", splits.labels(split), allow_pickle=False)
    return Workload(inputs, data)
