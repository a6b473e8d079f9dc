"""Body of the step `data.load`: source -> checked splits -> dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgemill.data import LoadSettings
from edgemill.data.check import check_finite, checked_part, copies
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.data.options import check_options
from edgemill.data.source import Array, Part, Source
from edgemill.data.sources import function, idx, image_folder, npy, npz, parquet, scikit
from edgemill.data.split import split_indices
from edgemill.errors import DataError, StoreError
from edgemill.recipe import Data
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

READERS: dict[str, Callable[[Data], Source]] = {
    "idx": idx.read,
    "npz": npz.read,
    "npy": npy.read,
    "image_folder": image_folder.read,
    "parquet": parquet.read,
    "sklearn": scikit.read,
    "python": function.read,
}


def run(settings: LoadSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Read the source that the recipe names and write its splits.

    Args:
        settings: the recipe's data section and task.
        inputs: none; the source is read from `settings.data.path`.
        context: the dataset is written below `context.out`.

    Returns:
        The file `data` of kind `dataset`, a folder for `edgemill.data.Dataset`. Facts: `sizes` by split,
        `classes`, `sample_shape`, `dtype`, `label_counts` by split (classification),
        `test_copies` (test samples whose values occur in another split, too), and what the source
        knows, e.g. `class_names`.

    Raises:
        RecipeError: wrong options.
        DataError: the data is missing, damaged, too little, or does not fit the task.
    """
    data = settings.data
    kind = check_options(data)
    context.report(0.0, f"reading {data.source}")
    source = READERS[kind](data)
    train = checked_part(source.parts[SplitName.TRAIN], settings.task, None)
    parts = {
        split: train if split is SplitName.TRAIN else checked_part(part, settings.task, train.x.shape[1:])
        for split, part in source.parts.items()
    }
    context.report(0.5, "splitting")
    samples, labels = _splits(parts, data)
    shared = copies(samples[SplitName.TEST], [x for split, x in samples.items() if split is not SplitName.TEST])
    if SplitName.TEST in parts and shared == len(samples[SplitName.TEST]):
        raise DataError(
            "Every test sample is in another split, too, so the test would prove nothing.",
            where=parts[SplitName.TEST].where,
            got=f"{shared} of {shared} samples occur elsewhere with the same values",
            remedy="give test samples that were held back, or leave them out and set data.split.test",
        )
    context.report(0.8, "writing")
    folder = context.out / "dataset"
    try:
        folder.mkdir()
        write_dataset(folder, samples, labels, data.preprocess)
    except OSError as error:
        raise StoreError("The dataset cannot be written.", where=str(folder), got=str(error)) from error
    facts = _facts(samples, labels) | {"test_copies": shared} | dict(source.facts)
    context.report(1.0, f"{sum(facts['sizes'].values())} samples")
    return Outputs({"data": OutputFile(folder, "dataset", facts=facts)}, facts)


def _splits(
    parts: Mapping[SplitName, Part], data: Data
) -> tuple[dict[SplitName, Array], dict[SplitName, Array] | None]:
    indices = split_indices(data.split, {split: len(part.x) for split, part in parts.items()})
    samples: dict[SplitName, Array] = {}
    labels: dict[SplitName, Array] = {}
    for split in SplitName:
        origin, positions = indices[split]
        part = parts[origin]
        samples[split] = part.x[positions]
        check_finite(samples[split], positions, split, "samples", part.where)
        if part.y is not None:
            labels[split] = part.y[positions]
            check_finite(labels[split], positions, split, "labels", part.where)
    return samples, labels or None


def _facts(samples: Mapping[SplitName, Array], labels: Mapping[SplitName, Array] | None) -> dict[str, Any]:
    train = samples[SplitName.TRAIN]
    facts: dict[str, Any] = {
        "sizes": {str(split): len(x) for split, x in samples.items()},
        "sample_shape": list(train.shape[1:]),
        "dtype": str(train.dtype),
        "classes": None,
    }
    if labels is not None and all(np.issubdtype(y.dtype, np.integer) for y in labels.values()):
        facts["classes"] = 1 + max(int(y.max()) for y in labels.values())
        facts["label_counts"] = {
            str(split): np.bincount(y.astype(np.int64), minlength=facts["classes"]).tolist()
            for split, y in labels.items()
        }
    return facts
