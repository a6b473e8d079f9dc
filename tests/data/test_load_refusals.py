"""What the step data.load refuses, and how it says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgemill.data import source_digest
from edgemill.errors import DataError, RecipeError
from edgemill.recipe import Data
from tests.data.loading import (
    TEST,
    counter,
    images,
    load,
    put,
    split,
    write_idx,
)


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
    folder = tmp_path / f"damaged{next(counter)}"
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
