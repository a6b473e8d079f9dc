"""The small data sets that come inside scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.source import Part, Source, decoding
from edgemill.recipe import Data


def read(data: Data) -> Source:
    """Read `sklearn:digits` as images (1797, 8, 8, 1) with values 0..16, the others as (N, features)."""
    name = data.source.partition(":")[2]
    with decoding(Path(data.source), "a data set of scikit-learn"):
        from sklearn import datasets

        bunch: Any = getattr(datasets, f"load_{name}")()
    x = bunch.images[..., None] if name == "digits" else bunch.data
    names = [str(item) for item in getattr(bunch, "target_names", ())]
    return Source(
        {SplitName.TRAIN: Part(np.asarray(x), np.asarray(bunch.target), data.source)},
        {"class_names": names} if names else {},
    )
