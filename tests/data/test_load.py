"""The step data.load: what every source gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from edgemill.data import SplitName
from edgemill.errors import DataError
from tests.data.loading import (
    CALIBRATION,
    TEST,
    TRAIN,
    VALIDATION,
    images,
    load,
    raw,
    split,
    write_idx,
)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_follows_the_w1_convention(tmp_path: Path, zipped: bool) -> None:
    x, y = images(100)
    tx, ty = images(40, seed=1)
    write_idx(tmp_path / "d", "train", x, y, zipped)
    write_idx(tmp_path / "d", "t10k", tx, ty, zipped)
    rule = {"validation": 25, "calibration": 7, "seed": 20261122, "calibration_within_validation": True}
    preprocess = {"scale": 255, "mean": 0.2860, "std": 0.3530}
    ds, facts = load(tmp_path, {"source": "idx", "path": str(tmp_path / "d"), "split": rule, "preprocess": preprocess})
    order = np.random.default_rng(20261122).permutation(100)
    assert np.array_equal(raw(ds, TRAIN), x[order[:75]][..., None])
    assert np.array_equal(raw(ds, VALIDATION), x[order[75:]][..., None])
    assert np.array_equal(raw(ds, CALIBRATION), x[order[75:82]][..., None])
    assert np.array_equal(raw(ds, TEST), tx[..., None])
    assert np.array_equal(ds.labels(VALIDATION), y[order[75:]])
    assert raw(ds, TRAIN).dtype == np.uint8
    assert ds.labels(TRAIN).dtype == np.int64
    expected = (tx[3:9, ..., None] / 255 - 0.2860) / 0.3530
    np.testing.assert_allclose(ds.features(TEST, 3, 9), expected, rtol=1e-5)
    assert ds.features(TEST).dtype == np.float32
    assert facts["sizes"] == {"train": 75, "validation": 25, "calibration": 7, "test": 40}
    assert facts["classes"] == ds.classes == 4
    assert facts["label_counts"]["test"] == np.bincount(ty, minlength=4).tolist()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_idx_number_types(tmp_path: Path, dtype: str) -> None:
    x = np.random.default_rng(0).normal(0, 40, (80, 3, 3)).astype(dtype)
    write_idx(tmp_path / "d", "train", x, np.zeros(80, np.uint8))
    ds, _ = load(tmp_path, {"source": "idx", "path": str(tmp_path / "d"), "split": split()})
    order = np.random.default_rng(3).permutation(80)
    np.testing.assert_allclose(raw(ds, TRAIN), x[order[:20]][..., None], rtol=1e-6)


@pytest.mark.parametrize("keys", [("x", "y", "x_test", "y_test"), ("x_train", "y_train", "x_test", "y_test")])
def test_npz_usual_names(tmp_path: Path, keys: tuple[str, ...]) -> None:
    (x, y), (tx, ty) = images(100), images(33, 1)
    np.savez_compressed(tmp_path / "a.npz", **dict(zip(keys, (x, y, tx, ty), strict=True)))
    ds, _ = load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split(test=None)})
    assert np.array_equal(raw(ds, TEST), tx)
    assert np.array_equal(ds.labels(TEST), ty)
    assert ds.sizes["train"] == 70


def test_npz_named_arrays_and_what_it_holds(tmp_path: Path) -> None:
    x, y = images()
    np.savez(tmp_path / "a.npz", pictures=x, kinds=y)
    data = {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split()}
    ds, _ = load(tmp_path, data | {"options": {"x": "pictures", "y": "kinds"}})
    assert ds.sizes == {"train": 40, "validation": 20, "calibration": 10, "test": 30}
    with pytest.raises(DataError) as caught:
        load(tmp_path, data)
    assert "pictures, kinds" in str(caught.value)
    with pytest.raises(DataError, match="no array pictured"):
        load(tmp_path, data | {"options": {"x": "pictured"}})


def test_npy_folder(tmp_path: Path) -> None:
    x, y = images()
    np.save(tmp_path / "x.npy", x.astype(np.float64))
    np.save(tmp_path / "y.npy", y[:, None])
    ds, _ = load(tmp_path, {"source": "npy", "path": str(tmp_path), "split": split()})
    assert raw(ds, TRAIN).dtype == np.float32
    assert ds.labels(TRAIN).shape == (40,)


def test_image_folder_with_test_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 9)):
        for name in ("cat", "ant"):
            (tmp_path / "d" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (8, 6, 3), np.uint8)
                pixels[..., 0] = 255 if name == "cat" else 0
                Image.fromarray(pixels).save(tmp_path / "d" / part / name / f"{index:03}.png")
    (tmp_path / "d" / "train" / "cat" / "notes.txt").write_text("no image")
    data = {"source": "image_folder", "path": str(tmp_path / "d"), "split": split(test=None)}
    ds, facts = load(tmp_path, data)
    assert facts["class_names"] == ["ant", "cat"]
    assert ds.sample_shape == (8, 6, 3)
    assert ds.sizes == {"train": 50, "validation": 20, "calibration": 10, "test": 18}
    for name in SplitName:
        assert np.array_equal(raw(ds, name)[:, 0, 0, 0] == 255, ds.labels(name) == 1)
    ds, _ = load(tmp_path, data | {"options": {"image_size": [4, 4], "channels": 1}})
    assert ds.sample_shape == (4, 4, 1)


def test_image_folder_refusals(tmp_path: Path) -> None:
    folder = tmp_path / "d" / "cat"
    folder.mkdir(parents=True)
    data = {"source": "image_folder", "path": str(tmp_path / "d"), "split": split()}
    with pytest.raises(DataError, match="no images"):
        load(tmp_path, data)
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    Image.new("RGB", (4, 5)).save(folder / "b.png")
    with pytest.raises(DataError, match="several sizes") as caught:
        load(tmp_path, data)
    assert "b.png" in str(caught.value)
    assert "image_size" in str(caught.value)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:30])
    with pytest.raises(DataError) as caught:
        load(tmp_path, data)
    assert "b.png" in str(caught.value)


def test_parquet_columns_and_list_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 6)), rng.integers(0, 3, 100)
    columns = {f"f{index}": x[:, index] for index in range(6)}
    pq.write_table(pa.table(columns | {"kind": y}), tmp_path / "wide.parquet")
    pq.write_table(pa.table({"pixels": list(x), "kind": y}), tmp_path / "list.parquet")
    data = {"source": "parquet", "split": split()}
    wide, _ = load(tmp_path, data | {"path": str(tmp_path / "wide.parquet"), "options": {"label_column": "kind"}})
    listed, _ = load(
        tmp_path,
        data | {"path": str(tmp_path / "list.parquet"), "options": {"label_column": "kind", "shape": [2, 3, 1]}},
    )
    assert wide.sample_shape == (6,)
    assert listed.sample_shape == (2, 3, 1)
    for name in SplitName:
        assert np.array_equal(raw(wide, name), raw(listed, name).reshape(-1, 6))
        assert np.array_equal(wide.labels(name), listed.labels(name))
    some, _ = load(
        tmp_path,
        data
        | {
            "path": str(tmp_path / "wide.parquet"),
            "options": {"label_column": "kind", "feature_columns": ["f3", "f1"]},
        },
    )
    assert np.array_equal(raw(some, TEST), raw(wide, TEST)[:, [3, 1]])


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([1.0, None] * 50), "empty cells"),
        (pa.array(["a", "b"] * 50), "does not hold numbers"),
        (pa.array([[1.0], [1.0, 2.0]] * 50), "several lengths"),
        (pa.array([[1.0, None]] * 100), "empty cells"),
    ],
)
def test_parquet_refusals(tmp_path: Path, column: pa.Array, words: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"feature": column, "kind": np.zeros(100, np.int64)}), path)
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path, {"source": "parquet", "path": str(path), "split": split(), "options": {"label_column": "kind"}})
    assert "column feature" in str(caught.value)
    with pytest.raises(DataError, match="lacks columns") as caught:
        load(tmp_path, {"source": "parquet", "path": str(path), "split": split(), "options": {"label_column": "lab"}})
    assert "feature, kind" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "task", "shape", "total"),
    [
        ("digits", "classification", (8, 8, 1), 1797),
        ("iris", "classification", (4,), 150),
        ("wine", "classification", (13,), 178),
        ("breast_cancer", "classification", (30,), 569),
        ("diabetes", "regression", (10,), 442),
    ],
)
def test_sklearn(tmp_path: Path, name: str, task: str, shape: tuple[int, ...], total: int) -> None:
    ds, _ = load(tmp_path, {"source": f"sklearn:{name}", "split": split()}, task)
    assert ds.sample_shape == shape
    assert sum(ds.sizes.values()) == total
    assert (ds.classes is None) == (task == "regression")
