"""Datasets: sources, splits, and the folder format in which a run keeps them."""

from edgemill.artifact import Frozen
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.data.digest import source_digest
from edgemill.recipe import Data, Task
from edgemill.step import Step

__all__ = ["LOAD", "Dataset", "LoadSettings", "SplitName", "source_digest", "write_dataset"]


class LoadSettings(Frozen):
    """Settings of the step `data.load`."""

    data: Data
    task: Task


LOAD = Step(
    name="data.load",
    version=1,
    body="edgemill.data.load:run",
    tools=("numpy", "pillow", "pyarrow", "scikit-learn"),
)
"""Reads the source and writes its splits as one artifact `data` of kind dataset.

The source is read by path, so the caller adds `source_digest(settings.data)` to the cache key.
"""
