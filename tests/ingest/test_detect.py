"""The format of a checkpoint is found from its content, and what is refused is refused by name."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemill.errors import CheckpointError
from edgemill.ingest.companions import checkpoint_files
from edgemill.ingest.detect import Format, detect
from edgemill.ingest.wire import TruncatedError, external_locations, looks_like_onnx


def small_onnx() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.arange(600, dtype=np.float32).reshape(20, 30), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 20])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 30])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def keras_zip(path: Path, version: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
    return path


def keras_h5(path: Path, **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(attributes)
        file.create_group("model_weights").create_dataset("w", data=np.zeros(1000))
    return path


@pytest.mark.parametrize(
    ("version", "expected"),
    [("2.15.0", Format.KERAS2_ZIP), ("2.21.0", Format.KERAS2_ZIP), ("3.8.0", Format.KERAS3_ZIP)],
)
def test_keras_archive_by_version_whatever_the_name(tmp_path: Path, version: str, expected: Format) -> None:
    assert detect(keras_zip(tmp_path / "model.onnx", version)) is expected


@pytest.mark.parametrize(("version", "expected"), [("2.15.0", Format.KERAS2_H5), ("3.8.0", Format.KERAS3_H5)])
def test_hdf5_by_version(tmp_path: Path, version: str, expected: Format) -> None:
    assert detect(keras_h5(tmp_path / "x", model_config="{}", keras_version=version)) is expected


def test_onnx_file_and_folder(tmp_path: Path) -> None:
    onnx.save(small_onnx(), tmp_path / "weights.bin")
    assert detect(tmp_path / "weights.bin") is Format.ONNX
    assert detect(tmp_path) is Format.ONNX


def test_tflite_identifier(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    assert detect(tmp_path / "m") is Format.TFLITE


def test_saved_model_folder(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    assert detect(tmp_path) is Format.SAVED_MODEL


def test_tf_checkpoint_by_prefix_and_by_folder(tmp_path: Path) -> None:
    (tmp_path / "ckpt-7.index").write_bytes(b"x")
    (tmp_path / "ckpt-7.data-00000-of-00001").write_bytes(b"x")
    assert detect(tmp_path / "ckpt-7") is Format.TF_CHECKPOINT
    assert detect(tmp_path) is Format.TF_CHECKPOINT


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def _joblib() -> bytes:
    return zlib.compress(pickle.dumps({"a": np.zeros(50)}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty", "0 bytes"]),
        (b"hello, this is no model\n", ["text", "hello"]),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["Git LFS", "git lfs pull"]),
        (bytes(range(256)) * 20, ["no known format"]),
        (_tar(), ["tar"]),
        (b"\x93NUMPY\x01\0" + bytes(80), ["NumPy"]),
        (_zip(a__b=b"1"), ["no Keras model"]),
        (_zip(**{"x.npy": b"1"}), ["NumPy archive"]),
        (struct.pack("<Q", 20) + b'{"w":{"dtype":"F32"}}' + bytes(9), ["weights only", "safetensors"]),
    ],
)
def test_refused_by_name(tmp_path: Path, content: bytes, words: list[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        detect(path)
    text = str(caught.value)
    assert str(path) in text
    assert "SavedModel" in text, "what is accepted is not said"
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "content",
    [
        *(pickle.dumps({"weights": list(range(50)), "s": "x"}, protocol=p) for p in range(6)),
        *(pickle.dumps(list(range(5000)), protocol=p) for p in range(3)),
        _zip(archive__data__pkl=b"1").replace(b"data/pkl", b"data.pkl"),
        _joblib(),
    ],
)
def test_pickle_is_refused_with_reason_and_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(CheckpointError, match="pickle") as caught:
        detect(tmp_path / "model.keras")
    assert "runs whatever code" in str(caught.value)
    assert "torch.onnx.export" in str(caught.value)


def test_weights_only_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("layers/dense/vars").create_dataset("0", data=np.zeros(10))
    with pytest.raises(CheckpointError, match="no Keras model") as caught:
        detect(tmp_path / "w.h5")
    assert "weights without an architecture" in str(caught.value)


def test_missing_file_and_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        detect(tmp_path / "nothing.keras")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        detect(tmp_path)


def test_several_onnx_in_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        onnx.save(small_onnx(), tmp_path / name)
    with pytest.raises(CheckpointError, match="several") as caught:
        detect(tmp_path)
    assert "a.onnx, b.onnx" in str(caught.value)


@given(cut=st.integers(1, 2600))
def test_every_truncation_of_onnx_is_told(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = small_onnx().SerializeToString()
    path = tmp_path_factory.mktemp("cut") / "m.onnx"
    path.write_bytes(content[: -min(cut, len(content) - 1)])
    with pytest.raises(CheckpointError):
        detect(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_truncated_hdf5_says_how_much_is_missing(tmp_path: Path, keep: float) -> None:
    path = keras_h5(tmp_path / "m.h5", model_config="{}", keras_version="2.21.0")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        detect(path)
    assert f"of {len(content)}" in str(caught.value)


def test_truncated_archive(tmp_path: Path) -> None:
    path = keras_zip(tmp_path / "m.keras", "3.1.0")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        detect(path)


@given(content=st.binary(max_size=300))
def test_any_bytes_get_an_answer(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        assert isinstance(detect(path), Format)


def test_external_data_is_found_and_brought_along(tmp_path: Path) -> None:
    onnx.save_model(
        small_onnx(), str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.bin", size_threshold=0
    )
    (tmp_path / "unrelated.txt").write_text("x")
    assert external_locations(tmp_path / "m.onnx") == ["m.bin"]
    with checkpoint_files(tmp_path / "m.onnx", 1 << 20) as folder:
        assert sorted(item.name for item in folder.iterdir()) == ["m.bin", "m.onnx"]
        assert detect(folder) is Format.ONNX


def point_outside(path: Path, location: str) -> None:
    model = small_onnx()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "a/../../secret.bin", "link.bin", "gone.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(2400))
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    point_outside(folder / "m.onnx", location)
    with pytest.raises(CheckpointError) as caught, checkpoint_files(folder / "m.onnx", 1 << 20):
        pass
    assert location in str(caught.value)


def test_wire_parser_sees_external_data_in_nested_graphs(tmp_path: Path) -> None:
    inner = small_onnx().graph
    inner.initializer[0].ClearField("raw_data")
    inner.initializer[0].data_location = TensorProto.EXTERNAL
    inner.initializer[0].external_data.add(key="location", value="deep.bin")
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    model = helper.make_model(helper.make_graph([node], "g", [], []))
    (tmp_path / "m").write_bytes(model.SerializeToString())
    assert looks_like_onnx(tmp_path / "m")
    assert external_locations(tmp_path / "m") == ["deep.bin"]


@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_wire_parser_survives_any_bit_flip(position: int, bit: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(small_onnx().SerializeToString())
    content[position % len(content)] ^= 1 << bit
    path = tmp_path_factory.mktemp("flip") / "m"
    path.write_bytes(content)
    with contextlib.suppress(TruncatedError):
        looks_like_onnx(path)
        external_locations(path)


def test_detection_and_declarations_import_no_framework() -> None:
    code = (
        "import sys, edgemill.ingest, edgemill.ingest.detect, edgemill.ingest.companions;"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras', 'onnx', 'onnxruntime', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
