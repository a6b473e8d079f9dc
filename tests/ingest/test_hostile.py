"""A damaged file gives a CheckpointError, or loads; it never gives another exception."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemill.errors import CheckpointError
from edgemill.ingest.export import keras_to_onnx
from edgemill.ingest.keras3 import keras3
from edgemill.tf import fresh, keras, tf
from tests.support.ingest_here import ingest_here

EXAMPLES = int(os.environ.get("EDGEMILL_HOSTILE_EXAMPLES", "12"))
NAMES = ["m.h5", "m.keras", "k3.keras", "k3.h5", "m.onnx", "m.tflite", "saved_model"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    fresh(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.save(folder / "m.h5")
    model.save(folder / "m.keras")
    model.save(folder / "saved_model", save_format="tf")
    keras_to_onnx(model, folder / "m.onnx")
    (folder / "m.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    newer = keras3.Sequential([keras3.Input((6, 6, 1)), keras3.layers.Flatten(), keras3.layers.Dense(3)])
    newer.save(folder / "k3.keras")
    newer.save(folder / "k3.h5")
    return folder


def damaged(source: Path, target: Path, change: Callable[[bytearray], None]) -> Path:
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
        file = target / "saved_model.pb"
    else:
        file = shutil.copyfile(source, target)
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)
    return target


def try_it(path: Path) -> bool:
    """Whether it loaded. Any other exception than a CheckpointError fails the test."""
    try:
        facts = ingest_here(path)
    except CheckpointError:
        return False
    assert facts["relative_difference"] <= 1e-4
    return True


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_flipped_bits(name: str, files: Path, tmp_path: Path, data: st.DataObject) -> None:
    places = data.draw(
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=6)
    )

    def flip(content: bytearray) -> None:
        for place, bit in places:
            content[int(place * len(content))] ^= 1 << bit

    try_it(damaged(files / name, tmp_path / name, flip))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.999))
def test_truncated(name: str, files: Path, tmp_path: Path, keep: float) -> None:
    def cut(content: bytearray) -> None:
        del content[int(keep * len(content)) :]

    loaded = try_it(damaged(files / name, tmp_path / name, cut))
    assert not loaded or keep > 0.9, "most of the file is missing and it loaded"


@pytest.mark.parametrize("name", NAMES)
def test_undamaged_files_load(name: str, files: Path) -> None:
    assert try_it(files / name)


def test_graph_whose_answers_overflow(files: Path, tmp_path: Path) -> None:
    model = onnx.load(files / "m.onnx")
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            values = np.full(tensor.dims, 3e38, np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match="finite"):
        ingest_here(tmp_path / "m.onnx")


def test_a_node_name_that_is_no_text_is_read_for_inference_only(files: Path, tmp_path: Path) -> None:
    model = onnx.load(files / "m.onnx")
    model.graph.node[0].name = "place/holder/name"
    content = model.SerializeToString().replace(b"place/holder/name", b"place/holder/nam\xe1")
    (tmp_path / "m.onnx").write_bytes(content)
    try:
        facts = ingest_here(tmp_path / "m.onnx")
    except CheckpointError:
        return
    assert facts["trainable"] or facts["unbridged"]
