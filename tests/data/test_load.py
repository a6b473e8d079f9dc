"""The step data.load: what every source gives, how it is split, and what is refused."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgemill.artifact import digest_path
from edgemill.data import Dataset, LoadSettings, SplitName, source_digest
from edgemill.data.load import run
from edgemill.data.split import split_indices
from edgemill.errors import DataError, RecipeError
from edgemill.recipe import Data, Split, Task
from edgemill.step import StepContext

TRAIN, VALIDATION, CALIBRATION, TEST = SplitName

_counter = iter(range(10**9))


def load(tmp_path: Path, data: dict[str, Any], task: str = "classification") -> tuple[Dataset, dict[str, Any]]:
    out = tmp_path / f"out{next(_counter)}"
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


FUNCTION = """
import numpy as np
import helper_of_my_data

def pair(n=100, classes=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, 4)), rng.integers(0, classes, n) + helper_of_my_data.ZERO

def parts():
    x, y = pair(100)
    return {"train": (x[:60], y[:60]), "validation": (x[60:80], y[60:80]), "test": (x[80:], y[80:])}

def leak():
    x, y = pair(50)
    return {"train": (x, y), "test": (x[:20], y[:20])}

def wrong():
    return 5

def fails():
    raise KeyError("no such thing")
"""


@pytest.fixture
def module(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_data.py").write_text(FUNCTION)
    (folder / "helper_of_my_data.py").write_text("ZERO = 0")
    return {"path": str(folder), "split": split()}


def test_function_with_arguments_and_clean_up(tmp_path: Path, module: dict[str, Any]) -> None:
    before = (list(sys.path), set(sys.modules))
    ds, _ = load(tmp_path, module | {"source": "python:my_data:pair", "options": {"n": 200, "classes": 2}})
    assert sum(ds.sizes.values()) == 200
    assert ds.classes == 2
    assert sys.path == before[0]
    assert not {"my_data", "helper_of_my_data"} & set(sys.modules)


def test_function_with_own_splits(tmp_path: Path, module: dict[str, Any]) -> None:
    data = module | {"source": "python:my_data:parts"}
    ds, _ = load(tmp_path, data | {"split": split(test=None)})
    assert ds.sizes == {"train": 50, "calibration": 10, "validation": 20, "test": 20}
    with pytest.raises(DataError, match="own test split") as caught:
        load(tmp_path, data | {"split": split(test=30)})
    assert "data.split.test: 20" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [("leak", "in another split"), ("wrong", "something else"), ("fails", "failed"), ("absent", "no function")],
)
def test_function_refusals(tmp_path: Path, module: dict[str, Any], function: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(tmp_path, module | {"source": f"python:my_data:{function}", "split": split(test=None)})
    with pytest.raises(DataError, match="no module"):
        load(tmp_path, module | {"source": "python:no_such_module:f"})


def put(tmp_path: Path, x: Any, y: Any, **options: Any) -> dict[str, Any]:
    path = tmp_path / "bad.npz"
    np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
    return {"source": "npz", "path": str(path), "split": split(**options)}


def test_nan_is_placed_and_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(100, 4, 3)), rng.integers(0, 3, 100)
    order = np.random.default_rng(3).permutation(100)
    at = int(order[45])  # train 0..39, calibration 40..49
    x[at, 2, 1], x[at, 3, 0] = np.nan, np.inf
    with pytest.raises(DataError) as caught:
        load(tmp_path, put(tmp_path, x, y))
    text = str(caught.value)
    assert "split calibration" in text
    assert "1 NaN and 1 infinite in 1 of 10 samples" in text
    assert f"sample {at} of the source, position (2, 1)" in text
    assert "bad.npz" in text


def test_value_beyond_float32_is_infinite(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 4))
    x[7, 1] = 1e300
    with pytest.raises(DataError, match="NaN or infinite"):
        load(tmp_path, put(tmp_path, x, np.zeros(100, np.int64)))


def test_nan_in_regression_labels(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(100, 4)), np.ones(100)
    y[3] = np.nan
    with pytest.raises(DataError, match="labels hold NaN"):
        load(tmp_path, put(tmp_path, x, y), "regression")


X = np.random.default_rng(5).normal(size=(100, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X, np.linspace(0, 1, 100), "are integers"),
        (X, np.full(100, -1), "out of range"),
        (X, np.full(100, 2**64 - 1, np.uint64), "out of range"),
        (X, np.eye(100, dtype=np.int64), "argmax"),
        (X, np.zeros(99, np.int64), "100 labels"),
        (X, None, "task: unlabelled"),
        (X, np.array(["a"] * 100), "not numbers"),
        (X.astype(complex), np.zeros(100, np.int64), "not numbers"),
        (X[:, 0], np.zeros(100, np.int64), "single number"),
        (X[:0], np.zeros(0, np.int64), "no samples"),
    ],
)
def test_data_that_does_not_fit_classification(tmp_path: Path, x: Any, y: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, put(tmp_path, x, y))
    assert words in str(caught.value)
    assert "bad.npz" in str(caught.value)


def test_test_samples_of_another_shape(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.zeros(100, int), x_test=X[:, :3], y_test=np.zeros(100, int))
    with pytest.raises(DataError, match="differ in shape") as caught:
        load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split(test=None)})
    assert "(4,)" in str(caught.value)
    assert "(3,)" in str(caught.value)


def test_unlabelled_needs_and_keeps_no_labels(tmp_path: Path) -> None:
    for y in (None, np.zeros(100, np.int64)):
        ds, facts = load(tmp_path, put(tmp_path, X, y), "unlabelled")
        assert not ds.labelled
        assert facts["classes"] is None
        with pytest.raises(DataError, match="no labels"):
            ds.labels(TEST)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    for source, path in (("npz", tmp_path / "bad.npz"), ("npy", tmp_path / "x.npy")):
        rows = np.array([None, {}], dtype=object)
        if source == "npz":
            np.savez(path, x=rows, y=rows)
        else:
            np.save(path, rows, allow_pickle=True)
        where = path if source == "npz" else tmp_path
        with pytest.raises(DataError) as caught:
            load(tmp_path, {"source": source, "path": str(where), "split": split()})
        assert path.name in str(caught.value)


def test_too_few_samples_names_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path, put(tmp_path, X, np.zeros(100, int), validation=60, calibration=20, test=20))
    assert "more than 100 samples" in str(caught.value)
    assert "100 samples" in str(caught.value.got)
    with pytest.raises(DataError, match="no test samples"):
        load(tmp_path, put(tmp_path, X, np.zeros(100, int), test=None))


@pytest.mark.parametrize("source", ["idx", "npz", "npy", "image_folder", "parquet"])
def test_missing_and_wrong_kind_of_path(tmp_path: Path, source: str) -> None:
    options = {"label_column": "y"} if source == "parquet" else {}
    data = {"source": source, "path": str(tmp_path / "nothing"), "split": split(), "options": options}
    for act in (lambda: load(tmp_path, data), lambda: source_digest(Data.model_validate(data))):
        with pytest.raises(DataError) as caught:
            act()
        assert "nothing" in str(caught.value)
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(DataError):
        load(tmp_path, data | {"path": str(text)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        load(tmp_path, data | {"path": str(tmp_path / "empty")})


def test_wrong_options_are_refused_by_key_before_reading(tmp_path: Path) -> None:
    data = Data.model_validate(
        {"source": "parquet", "path": str(tmp_path / "nothing"), "split": split(), "options": {"label": "y"}}
    )
    with pytest.raises(RecipeError) as caught:
        source_digest(data)
    assert "data.options.label: unknown key; known for source parquet: feature_columns, label_column" in str(
        caught.value
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["idx", "npz", "npy", "parquet", "image_folder"]))
def test_damaged_files_give_a_data_error_or_data(tmp_path: Path, draw: st.DataObject, source: str) -> None:
    folder = tmp_path / f"damaged{next(_counter)}"
    folder.mkdir()
    x, y = images(100)
    options: dict[str, Any] = {}
    path = folder
    if source == "idx":
        write_idx(folder, "train", x, y, zipped=False)
        victim = folder / "train-images-idx3-ubyte"
    elif source == "npz":
        path = victim = folder / "a.npz"
        np.savez(victim, x=x, y=y)
    elif source == "npy":
        victim = folder / "x.npy"
        np.save(victim, x)
        np.save(folder / "y.npy", y)
    elif source == "parquet":
        path = victim = folder / "a.parquet"
        pq.write_table(pa.table({"a": x[:, 0, 0], "y": y}), victim)
        options = {"label_column": "y"}
    else:
        (folder / "one").mkdir()
        victim = folder / "one" / "a.png"
        Image.fromarray(x[0]).save(victim)
    content = bytearray(victim.read_bytes())
    if draw.draw(st.booleans()):
        del content[draw.draw(st.integers(0, len(content) - 1)) :]
    else:
        for _ in range(draw.draw(st.integers(1, 4))):
            content[draw.draw(st.integers(0, min(len(content) - 1, 200)))] = draw.draw(st.integers(0, 255))
    victim.write_bytes(content)
    # Anything but DataError fails the test.
    try:
        load(tmp_path, {"source": source, "path": str(path), "split": split(), "options": options})
        said = str(folder)
    except DataError as error:
        said = str(error)
    assert str(folder) in said or "data.split" in said


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(1, 400),
    validation=st.integers(1, 120),
    calibration=st.integers(1, 120),
    test=st.none() | st.integers(1, 120),
    own_test=st.none() | st.integers(1, 50),
    seed=st.integers(0, 2**40),
    inside=st.booleans(),
)
def test_splits_are_disjoint_complete_and_repeatable(
    total: int, validation: int, calibration: int, test: int | None, own_test: int | None, seed: int, inside: bool
) -> None:
    rule = Split(
        validation=max(validation, calibration) if inside else validation,
        calibration=calibration,
        test=test,
        seed=seed,
        calibration_within_validation=inside,
    )
    available = {TRAIN: total} | ({} if own_test is None else {TEST: own_test})
    taken = rule.validation + (0 if inside else calibration) + (test or 0 if own_test is None else 0)
    no_test = test is None and own_test is None
    if no_test or taken >= total or (own_test is not None and test not in (None, own_test)):
        with pytest.raises(DataError):
            split_indices(rule, available)
        return
    result = split_indices(rule, available)
    own = [indices for part, indices in result.values() if part is TRAIN]
    if inside:
        own = [indices for name, (part, indices) in result.items() if part is TRAIN and name is not CALIBRATION]
        assert set(result[CALIBRATION][1]) <= set(result[VALIDATION][1])
    assert sorted(np.concatenate(own)) == list(range(total))
    assert len(result[VALIDATION][1]) == rule.validation
    assert len(result[CALIBRATION][1]) == calibration
    assert len(result[TEST][1]) == (own_test if own_test is not None else test)
    again = split_indices(rule, available)
    assert all(np.array_equal(result[name][1], again[name][1]) for name in SplitName)


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    x, y = images()
    for name in ("a", "b"):
        write_idx(tmp_path / name, "train", x, y, zipped=False)

    def digest(folder: str) -> str:
        return source_digest(Data.model_validate({"source": "idx", "path": str(tmp_path / folder), "split": split()}))

    assert digest("a") == digest("b")
    victim = tmp_path / "b" / "train-labels-idx1-ubyte"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x01" if y[-1] != 1 else victim.read_bytes()[:-1] + b"\x02")
    assert digest("a") != digest("b")


def test_digest_of_a_function_counts_source_options_and_named_files(tmp_path: Path, module: dict[str, Any]) -> None:
    def digest(**options: Any) -> str:
        data = module | {"source": "python:my_data:pair", "options": options}
        return source_digest(Data.model_validate(data))

    (tmp_path / "code" / "table.csv").write_text("1,2")
    first, named = digest(), digest(table="table.csv")
    assert len({first, named, digest(n=3), digest(table="other.csv")}) == 4
    (tmp_path / "code" / "table.csv").write_text("1,3")
    assert digest() == first
    assert digest(table="table.csv") != named
    (tmp_path / "code" / "my_data.py").write_text(FUNCTION + "\n# changed")
    assert digest() != first
    assert "my_data" not in sys.modules


def test_same_settings_give_the_same_artifact(tmp_path: Path) -> None:
    x, y = images()
    np.savez(tmp_path / "a.npz", x=x, y=y)
    digests = []
    for _ in range(2):
        load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split()})
        digests.append(digest_path(max(tmp_path.glob("out*"), key=lambda path: int(path.name[3:]))))
    assert digests[0] == digests[1]


def test_declaring_the_step_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgemill.data as d; d.LOAD; d.source_digest; "
        "print([m for m in ('tensorflow', 'sklearn', 'PIL', 'pyarrow', 'onnxruntime', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_copies_of_test_samples_are_counted(tmp_path: Path) -> None:
    x, y = images()
    tx = np.concatenate([x[:3], images(20, seed=9)[0]])
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=tx, y_test=np.zeros(23, int))
    _, facts = load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split(test=None)})
    assert facts["test_copies"] == 3
