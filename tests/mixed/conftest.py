"""A small classifier with an honest head, healthy or with badly scaled channels at chosen places."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemill.data.dataset import Dataset
from tests.mixed.graphs import classifier
from tests.quantize.models import digits


class Bench:
    """A folder with the digits dataset, and classifiers in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_path = folder / "data"
        self.data: Dataset = digits(self.data_path)

    def model(self, *places: int) -> Path:
        """Classifier whose channels are badly scaled behind these convolutions."""
        path = self.folder / f"model{''.join(map(str, places))}.onnx"
        if not path.exists():
            classifier(path, self.data, places)
        return path


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("mixed"))
