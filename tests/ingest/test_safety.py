"""An untrusted checkpoint runs no code, stays inside its archive and has a size."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.errors import CheckpointError
from edgemill.ingest.safety import (
    require_finite,
    require_safe,
    require_safe_archive,
    require_safe_hdf5,
    require_size,
    unsafe_parts,
)

KNOWN = {"Dense", "Conv2D", "GlorotUniform", "Functional", "Policy", "relu", "TFOpLambda", "StringLookup"}


def layer(kind: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": kind, "config": {"name": f"my_{kind.lower()}"} | config}


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Functional", "config": {"name": "net", "layers": list(layers)}}


@pytest.mark.parametrize(
    "part",
    [
        layer("Dense"),
        layer("Dense", None),
        layer("Dense", kernel_initializer={"module": "keras.initializers", "class_name": "X", "config": {}}),
        layer("Dense", dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}),
        layer("Add", "keras.src.ops.numpy"),
        layer("Conv2D", "tensorflow.keras.layers"),
        layer("TFOpLambda", None, function="math.multiply"),
        layer("TFOpLambda", None, function="__operators__.add"),
    ],
)
def test_ordinary_parts_need_no_trust(part: dict[str, Any]) -> None:
    assert require_safe(model(part), KNOWN.__contains__, False, "m") == []


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (layer("Lambda"), "runs Python code"),
        (layer("Lambda", None), "runs Python code"),
        (layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "x"}}), "runs Python code"),
        (layer("Mine", "my_package.layers"), "my_package.layers"),
        (layer("Mine", None), "custom class"),
        (layer("Dense") | {"registered_name": "Evil>Dense"}, "Evil>Dense"),
        (layer("Popen", "subprocess"), "subprocess"),
        (layer("get_file", "keras.utils"), "keras.utils"),
        (layer("get_file", "keras.src.utils.file_utils"), "keras.src.utils"),
        (layer("Thing", "keras_evil.layers"), "keras_evil.layers"),
        (layer("TFSMLayer"), "another file"),
        (layer("TorchModuleWrapper"), "unpickles"),
        (layer("TFOpLambda", None, function="io.write_file"), "io.write_file"),
        (layer("TFOpLambda", None, function="raw_ops.ReadFile"), "raw_ops.ReadFile"),
        (layer("TFOpLambda", None, function="py_function"), "py_function"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "/etc/passwd"),
        (layer("Dense", activation={"module": "builtins", "class_name": "function", "config": "mine"}), "function"),
    ],
)
def test_foreign_code_is_named_and_refused(part: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        require_safe(model(layer("Dense"), part), KNOWN.__contains__, False, "m.keras")
    text = str(caught.value)
    assert part["config"]["name"] in text
    assert reason in text
    assert "checkpoint.trust: true" in text
    assert len(require_safe(model(part), KNOWN.__contains__, True, "m.keras")) == 1


def test_several_are_all_named() -> None:
    with pytest.raises(CheckpointError) as caught:
        require_safe(model(layer("Lambda", name="one"), layer("Mine", "x", name="two")), KNOWN.__contains__, False, "m")
    assert "'one'" in str(caught.value)
    assert "'two'" in str(caught.value)


def test_training_configuration_is_not_loaded_and_so_not_judged() -> None:
    config = model(layer("Dense")) | {"compile_config": {"loss": layer("Mine", "my_losses")}}
    assert unsafe_parts(config, KNOWN.__contains__) == []


def test_absurd_nesting_is_refused() -> None:
    config: Any = {}
    for _ in range(500):
        config = {"config": config}
    with pytest.raises(CheckpointError, match="nested too deep"):
        unsafe_parts(config, KNOWN.__contains__)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["class_name", "module", "config", "name", "vocabulary"]), inner, max_size=4
            )
        ),
    )
)
def test_any_json_is_judged(config: Any) -> None:
    assert all(part.reason for part in unsafe_parts(config, KNOWN.__contains__))


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members:
            target.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_member_that_leaves_the_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="never has") as caught:
        require_safe_archive(archive(tmp_path / "m.keras", ("config.json", b"{}"), (name, b"x")), 1000)
    assert "leaves the archive" in str(caught.value)


def test_link_and_double_member(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as target:
        link = zipfile.ZipInfo("weights")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    with pytest.raises(CheckpointError, match="never has") as caught:
        require_safe_archive(path, 1000)
    assert "symbolic link" in str(caught.value)
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(path, ("a", b"1"), ("a", b"2"))
    with pytest.raises(CheckpointError) as caught:
        require_safe_archive(path, 1000)
    assert "twice" in str(caught.value)


def test_zip_bomb_is_stopped_by_what_comes_out(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", ("config.json", bytes(50 << 20)))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="too large") as caught:
        require_safe_archive(path, 10 << 20)
    assert "checkpoint.max_bytes" in str(caught.value)


def test_damaged_member(tmp_path: Path) -> None:
    path = archive(tmp_path / "m.keras", ("config.json", b"some content " * 50))
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        require_safe_archive(path, 1 << 20)


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "raw"])
def test_hdf5_that_points_outside(tmp_path: Path, kind: str) -> None:
    np.arange(100.0).tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.zeros(10)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("layers")
        group["own"] = np.zeros(3)
        if kind == "soft":
            group["w"] = h5py.SoftLink("/somewhere")
        elif kind == "external":
            group["w"] = h5py.ExternalLink("other.h5", "/secret")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((10,), "f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (10,))
            group.create_virtual_dataset("w", layout)
        else:
            group.create_dataset("w", (100,), "f8", external=[(str(tmp_path / "raw.bin"), 0, 800)])
    with h5py.File(tmp_path / "m.h5") as file, pytest.raises(CheckpointError, match="not its own data") as caught:
        require_safe_hdf5(file, "m.h5", 1 << 20)
    assert "/layers/w" in str(caught.value)


def test_hdf5_that_declares_more_than_it_holds(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", (1 << 40,), "f4", chunks=(1 << 20,))
    with h5py.File(tmp_path / "m.h5") as file, pytest.raises(CheckpointError, match="too large"):
        require_safe_hdf5(file, "m.h5", 4 << 30)


def test_size_and_links_of_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(500))
    require_size(tmp_path, 500)
    with pytest.raises(CheckpointError, match="too large"):
        require_size(tmp_path, 499)
    (tmp_path / "b").symlink_to("/etc/passwd")
    with pytest.raises(CheckpointError, match="symbolic link"):
        require_size(tmp_path, 1 << 20)


def test_broken_weights_are_counted() -> None:
    good = np.ones((3, 4), np.float32)
    bad = good.copy()
    bad[0, :2] = [np.nan, -np.inf]
    require_finite([("good", good), ("int", np.ones(3, np.int64))], "m")
    with pytest.raises(CheckpointError, match="NaN or infinite") as caught:
        require_finite([("good", good), ("conv/kernel", bad)], "m.h5")
    assert "conv/kernel: 2 of 12" in str(caught.value)
