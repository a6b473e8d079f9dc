"""A damaged HDF5 file is refused by a process that may die or hang; ours goes on."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from edgemill.errors import CheckpointError
from edgemill.ingest import hdf5_probe
from edgemill.ingest.hdf5_probe import probe_hdf5


@pytest.fixture
def intact(tmp_path):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file["layers/dense/kernel"] = np.ones((64, 64), np.float32)
    return path


def test_contents(intact):
    contents = probe_hdf5(intact)
    assert contents.keras_version == "2.15.0"
    assert contents.groups == ("layers",)


def test_damage_is_named(intact):
    content = bytearray(intact.read_bytes())
    content[96:1200] = bytes(len(content[96:1200]))
    intact.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        probe_hdf5(intact)
    assert str(intact) in str(caught.value)


def test_a_library_that_never_returns_is_stopped(intact, monkeypatch):
    monkeypatch.setattr(hdf5_probe, "_TIME_LIMIT_S", 0.01)
    monkeypatch.setattr(hdf5_probe, "_BYTES_PER_SECOND", 1 << 50)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        probe_hdf5(intact)
    assert "not read after" in str(caught.value)
