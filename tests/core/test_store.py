"""The store: content has one name, nothing half-written is ever seen, failures are said at once."""

from __future__ import annotations

import fcntl
import multiprocessing
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemill.artifact import canonical_json, digest_path
from edgemill.errors import StoreError
from edgemill.files import locked
from edgemill.store import StepRecord, Store, write_atomically


@given(st.binary(max_size=4096))
def test_content_comes_back_and_its_name_is_its_digest(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("store")
    source = folder / "model.bin"
    source.write_bytes(content)
    store = Store(folder / "state")
    artifact = store.put(source, kind="bytes", step="test")
    assert store.path(artifact).read_bytes() == content
    assert artifact.digest == digest_path(source)
    assert store.intact(artifact)


def test_a_folder_is_identified_by_names_and_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x").write_text("1")
    assert digest_path(tmp_path / "a") == digest_path(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x").rename(tmp_path / "b" / "sub" / "y")
    assert digest_path(tmp_path / "a") != digest_path(tmp_path / "b")


def test_same_content_under_two_names_can_be_read_under_both(tmp_path):
    store = Store(tmp_path / "state")
    paths = []
    for name in ("model.onnx", "other.onnx"):
        (tmp_path / name).write_text("same")
        paths.append(store.path(store.put(tmp_path / name, kind="onnx", step="test")))
    assert [path.name for path in paths] == ["model.onnx", "other.onnx"]
    assert all(path.read_text() == "same" for path in paths)


def test_stored_content_is_read_only(tmp_path):
    (tmp_path / "x").write_text("1")
    store = Store(tmp_path / "state")
    path = store.path(store.put(tmp_path / "x", kind="text", step="test"))
    assert path.stat().st_mode & 0o222 == 0


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_what_a_killed_writer_left_is_used_and_not_kept(tmp_path):
    (tmp_path / ".record.json.tmp").write_text("half of a rec")
    write_atomically(tmp_path / "record.json", "whole")
    assert (tmp_path / "record.json").read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def _write_often(path: str) -> None:
    for _ in range(200):
        write_atomically(Path(path), "x" * 1000)


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_often, args=(str(tmp_path / "file"),)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert (tmp_path / "file").read_text() == "x" * 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def record(key: str) -> StepRecord:
    return StepRecord(
        key=key, step="test.step", version=1, settings={}, inputs={}, outputs={}, facts={}, tools={}, seed=0, extra={},
        wall_s=0.0, finished_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def test_opening_the_store_removes_what_kills_left_and_nothing_that_is_in_use(tmp_path):
    store = Store(tmp_path)
    done, running, interrupted = (digit * 64 for digit in "abc")
    for key in (done, running, interrupted):
        (store.workspace(key) / "resume" / "epoch").write_text("3")
    store.commit(record(done))  # killed before it tidied up
    store.commit(record(running))  # its output is damaged, and it runs again
    (tmp_path / "work" / "put-abandoned").mkdir()
    with store.lock(running):
        Store(tmp_path)
        assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [running, interrupted]
    with locked(tmp_path / "locks" / "putting", fcntl.LOCK_SH):  # another process puts something
        (tmp_path / "work" / "put-of-another").mkdir()
        Store(tmp_path)
        assert (tmp_path / "work" / "put-of-another").exists()
    assert (store.workspace(interrupted) / "resume" / "epoch").read_text() == "3"


def test_a_full_disk_is_said_at_once(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1 << 20))
    with pytest.raises(StoreError, match="nearly full") as caught:
        Store(tmp_path)
    assert "1 MiB free" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(blocker / "state")


def test_a_truncated_record_is_not_taken_for_a_result(tmp_path):
    store = Store(tmp_path)
    key = "ab" * 32
    record = tmp_path / "steps" / key[:2]
    record.mkdir(parents=True)
    (record / f"{key}.json").write_text('{"key": "abab')
    assert store.record(key) is None
    assert list(store.records()) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    assert canonical_json(value) == canonical_json(dict(reversed(value.items())))


def test_state_folder_follows_the_variable(monkeypatch, tmp_path):
    from edgemill.store import state_folder

    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path))
    assert state_folder() == Path(tmp_path)
