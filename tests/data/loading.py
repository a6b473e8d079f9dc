"""Sources of data as files, and the step data.load on them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.data import Dataset, LoadSettings, SplitName
from edgemill.data.load import run
from edgemill.recipe import Data, Task
from edgemill.step import StepContext

TRAIN, VALIDATION, CALIBRATION, TEST = SplitName

counter = iter(range(10**9))


def load(tmp_path: Path, data: dict[str, Any], task: str = "classification") -> tuple[Dataset, dict[str, Any]]:
    out = tmp_path / f"out{next(counter)}"
    out.mkdir()
    messages: list[str] = []
    context = StepContext(out, out, 0, lambda fraction, message: messages.append(message))
    outputs = run(LoadSettings(data=Data.model_validate(data), task=Task(task)), {}, context)
    assert messages
    assert outputs.files["data"].kind == "dataset"
    return Dataset(outputs.files["data"].path), dict(outputs.facts)


def split(**changes: Any) -> dict[str, Any]:
    return {"validation": 20, "calibration": 10, "test": 30, "seed": 3} | changes


def images(count: int = 100, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 6, 5), np.uint8), rng.integers(0, 4, count)


def idx_bytes(array: np.ndarray) -> bytes:
    code = {"uint8": 8, "int8": 9, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}[str(array.dtype)]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(folder: Path, prefix: str, x: np.ndarray, y: np.ndarray, zipped: bool = True) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", y.astype(np.uint8))):
        if zipped:
            (folder / f"{prefix}-{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / f"{prefix}-{name}").write_bytes(idx_bytes(array))


def raw(dataset: Dataset, name: SplitName) -> np.ndarray:
    return np.asarray(dataset.raw(name))


def put(tmp_path: Path, x: Any, y: Any, **options: Any) -> dict[str, Any]:
    path = tmp_path / "bad.npz"
    np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
    return {"source": "npz", "path": str(path), "split": split(**options)}
