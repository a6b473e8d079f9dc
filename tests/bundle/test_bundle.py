"""Writing and reading family bundles, damage included."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgemill.artifact import digest_path, digest_text
from edgemill.bundle import MANIFEST, Manifest, Origin, read_bundle, write_bundle
from edgemill.errors import InvariantError, StoreError
from edgemill.recipe import Budget, Preprocess, Task
from edgemill.summary import Profile, Status, TargetResult, VariantResult
from edgemill.targets import load_target
from edgemill.validate.decide import failed
from edgemill.validate.paired_proportions import compare_binary

TARGET = load_target("x86-64-vnni")
BUDGET = Budget(max_accuracy_drop=0.01)
ORIGIN = Origin(
    model="digits",
    task=Task.CLASSIFICATION,
    preprocess=Preprocess(scale=16),
    checkpoint_digest=digest_text("checkpoint"),
    data_digest=digest_text("data"),
)


def variant(path: Path, name: str, status: Status) -> VariantResult:
    passing = compare_binary(np.ones(1000), np.ones(1000), BUDGET)
    profile = Profile(size_bytes=path.stat().st_size, compressed_bytes=path.stat().st_size, source="measured:native")
    return VariantResult(
        target=TARGET.name,
        candidate=name,
        scheme="int8_static",
        digest=digest_path(path),
        kind="onnx",
        profile=profile,
        accuracy=0.97,
        verdict=passing if status is not Status.FAILED else failed(BUDGET, 10, "worse"),
        status=status,
        reason="" if status is not Status.FAILED else "worse",
    )


@pytest.fixture
def made(tmp_path: Path) -> tuple[TargetResult, dict[str, Path]]:
    variants, files = [], {}
    for name, status in (("plain", Status.PASSED), ("student", Status.SELECTED), ("broken", Status.FAILED)):
        path = tmp_path / f"store-{name}"
        path.write_bytes(name.encode() * 1000)
        variants.append(variant(path, name, status))
        files[digest_path(path)] = path
    return TargetResult(target=TARGET.name, source="measured:native", variants=tuple(variants)), files


def test_round_trip(tmp_path, made):
    result, files = made
    written = write_bundle(tmp_path / "bundles" / TARGET.name, result, TARGET, files, ORIGIN)
    folder = tmp_path / "bundles" / TARGET.name
    assert read_bundle(folder) == written
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "plain.onnx", "student.onnx"]
    assert [v.candidate for v in written.variants] == ["student", "plain"]
    assert written.default_variant.candidate == "student"
    assert written.runtime == TARGET.runtime
    assert written.target_digest == TARGET.digest
    assert written.preprocess.scale == 16
    assert not [p for p in folder.parent.iterdir() if p != folder], "no temporary folder is left"


def test_writing_again_replaces_the_whole_folder_with_equal_bytes(tmp_path, made):
    result, files = made
    folder = tmp_path / "b"
    write_bundle(folder, result, TARGET, files, ORIGIN)
    first = digest_path(folder)
    (folder / "left-over.onnx").write_bytes(b"old")
    write_bundle(folder, result, TARGET, files, ORIGIN)
    assert digest_path(folder) == first
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("how", ["flip", "truncate", "remove", "link"])
def test_a_damaged_file_is_named(tmp_path, made, how):
    result, files = made
    folder = tmp_path / "b"
    write_bundle(folder, result, TARGET, files, ORIGIN)
    victim = folder / "plain.onnx"
    content = bytearray(victim.read_bytes())
    victim.unlink()
    if how == "flip":
        content[17] ^= 1
        victim.write_bytes(content)
    elif how == "truncate":
        victim.write_bytes(content[:-1])
    elif how == "link":
        victim.symlink_to(tmp_path / "store-plain")
    with pytest.raises(StoreError) as refusal:
        read_bundle(folder)
    assert "plain.onnx" in str(refusal.value)
    assert refusal.value.exit_code == 2


def edited(folder: Path, change) -> None:
    path = folder / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(schema_version=2),
        lambda m: m.update(unknown=1),
        lambda m: m.update(default="0" * 64),
        lambda m: m.update(variants=[]),
        lambda m: m["variants"][0].update(file="../escape.onnx"),
        lambda m: m["variants"][0].update(file="/etc/passwd"),
        lambda m: m["variants"][1].update(file="STUDENT.onnx"),
        lambda m: m["variants"][0].update(file="manifest.json"),
        lambda m: m["variants"][0]["verdict"].update(verdict="FAIL"),
        lambda m: m["variants"][0]["verdict"].update(verdict="INCONCLUSIVE"),
        lambda m: m["variants"][0].pop("digest"),
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path, made, change):
    result, files = made
    folder = tmp_path / "b"
    write_bundle(folder, result, TARGET, files, ORIGIN)
    edited(folder, change)
    with pytest.raises(StoreError, match="manifest"):
        read_bundle(folder)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_no_damage_of_the_manifest_gives_anything_but_a_store_error(tmp_path, made, data):
    result, files = made
    folder = tmp_path / "b"
    write_bundle(folder, result, TARGET, files, ORIGIN)
    content = bytearray((folder / MANIFEST).read_bytes())
    cut = data.draw(st.integers(0, len(content) - 1))
    content[cut : cut + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    (folder / MANIFEST).write_bytes(content)
    with contextlib.suppress(StoreError):  # damage inside a free text goes unseen: the manifest has no digest
        assert isinstance(read_bundle(folder), Manifest)


def test_nothing_here(tmp_path):
    with pytest.raises(StoreError, match="no bundle"):
        read_bundle(tmp_path)
    with pytest.raises(StoreError, match="no bundle"):
        read_bundle(tmp_path / "absent")


def test_only_what_was_gated_is_written(tmp_path, made):
    result, files = made
    digest = result.selected
    assert digest is not None
    Path(files[digest]).write_bytes(b"something else")
    with pytest.raises(InvariantError, match="not the one that was gated"):
        write_bundle(tmp_path / "b", result, TARGET, files, ORIGIN)
    with pytest.raises(InvariantError, match="not given"):
        write_bundle(tmp_path / "b", result, TARGET, {}, ORIGIN)
    assert not (tmp_path / "b").exists()


def test_without_a_passing_variant_there_is_no_bundle(tmp_path, made):
    result, files = made
    nothing = result.model_copy(update={"variants": result.variants[2:]})
    with pytest.raises(InvariantError, match="passed"):
        write_bundle(tmp_path / "b", nothing, TARGET, files, ORIGIN)
    with pytest.raises(InvariantError, match="another target"):
        write_bundle(tmp_path / "b", result, load_target("android-arm64"), files, ORIGIN)


def test_a_selected_variant_that_failed_its_gate_never_ships(tmp_path, made):
    result, files = made
    chosen = result.selected_variant
    assert chosen is not None
    forged = chosen.model_copy(update={"verdict": failed(BUDGET, 10, "worse")})
    with pytest.raises(ValidationError, match="only PASS ships"):
        write_bundle(tmp_path / "b", result.model_copy(update={"variants": (forged,)}), TARGET, files, ORIGIN)


def test_folder_that_cannot_be_written(tmp_path, made):
    result, files = made
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "b", result, TARGET, files, ORIGIN)


def test_reading_needs_nothing_heavy():
    code = (
        "import sys, edgemill.bundle; heavy = {'scipy', 'onnx', 'onnxruntime', 'tensorflow', 'jinja2', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
    )
    assert ran.stdout.strip() == "[]"
