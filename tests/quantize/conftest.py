"""Trained small models, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemill.data.dataset import Dataset
from tests.quantize.models import awkward, digits, fit, mixed, residual


class Workshop:
    """A folder with the digits dataset and, for each small model, its Keras and ONNX file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_path = folder / "data"
        self.data: Dataset = digits(self.data_path)

    def keras(self, name: str) -> Path:
        path = self.folder / f"{name}.keras"
        if not path.exists():
            from edgemill.ingest.export import keras_to_onnx
            from edgemill.tf import fresh, keras

            fresh(0)
            model = {"residual": residual, "mixed": mixed, "awkward": awkward}[name](keras)
            fit(model, self.data, keras)
            model.save(path)
            keras_to_onnx(model, path.with_suffix(".onnx"))
        return path

    def onnx(self, name: str) -> Path:
        return self.keras(name).with_suffix(".onnx")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("quantize"))
