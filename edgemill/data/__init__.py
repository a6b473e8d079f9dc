"""Datasets: sources, splits, and the folder format in which a run keeps them."""

from edgemill.data.dataset import Dataset, SplitName, write_dataset

__all__ = ["Dataset", "SplitName", "write_dataset"]
