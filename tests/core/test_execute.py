"""Steps run in child processes, once, within limits; every kind of end is a readable error."""

from __future__ import annotations

import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgemill.errors import DataError, InvariantError, ToolchainError
from edgemill.execute import Call, execute, release_workers
from edgemill.step import Step
from edgemill.store import Store

SUPPORT = str(Path(__file__).parents[1] / "support")
sys.path.insert(0, SUPPORT)

from edgemill_test_steps import Words  # noqa: E402  (found by the path above)


def step(name: str, **changes) -> Step:
    return replace(Step(name=f"test.{name}", version=1, body=f"edgemill_test_steps:{name}"), **changes)


def call(name: str, words: Words | None = None, inputs=None, **changes) -> Call:
    return Call(step(name, **changes), words or Words(), inputs or {}, search_path=(SUPPORT,))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    return Store(tmp_path)


def silent(fraction, message) -> None:
    pass


def test_a_step_runs_once_and_is_found_the_second_time(store):
    first = execute(store, call("upper", Words(text="abc")), silent)
    again = execute(store, call("upper", Words(text="abc")), silent)
    assert (first.cached, again.cached) == (False, True)
    assert again.record == first.record
    assert store.path(first.record.outputs["words"]).read_text() == "ABC"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: replace(c, seed=1),
        lambda c: replace(c, step=replace(c.step, version=2)),
        lambda c: replace(c, settings=Words(text="abd")),
        lambda c: replace(c, extra={"host": "another"}),
    ],
)
def test_whatever_decides_the_result_is_in_the_key(change):
    original = call("upper", Words(text="abc"))
    assert change(original).key != original.key


def test_inputs_are_identified_by_content_and_become_parents(store, tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("same")
    one, two = (store.put(tmp_path / name, kind="text", step="test") for name in ("one.txt", "two.txt"))
    first = execute(store, call("upper", inputs={"source": one}), silent)
    assert execute(store, call("upper", inputs={"source": two}), silent).cached
    assert first.record.outputs["words"].parents == (one.digest,)


def test_a_damaged_output_is_made_again(store):
    record = execute(store, call("upper", Words(text="abc")), silent).record
    path = store.path(record.outputs["words"])
    path.chmod(0o644)
    path.write_text("AB")
    assert not execute(store, call("upper", Words(text="abc")), silent).cached
    assert path.read_text() == "ABC"


def test_an_error_of_the_body_keeps_its_kind_and_text(store):
    with pytest.raises(DataError) as caught:
        execute(store, call("refuse"), silent)
    assert str(caught.value).splitlines() == [
        "Too few words.",
        "  where: line 3",
        "  expected: two",
        "  got: one",
        "  remedy: add one",
    ]


def test_a_failure_is_never_cached(store):
    for _ in range(2):
        with pytest.raises(InvariantError, match="did not foresee"):
            execute(store, call("crash"), silent)


def test_the_death_of_a_child_is_one_error_with_its_last_words(store):
    with pytest.raises(ToolchainError, match="died") as caught:
        execute(store, call("die"), silent)
    assert "last words" in str(caught.value)


def test_a_killed_step_goes_on_and_half_written_output_is_gone(store):
    with pytest.raises(ToolchainError):
        execute(store, call("resume"), silent)
    record = execute(store, call("resume"), silent).record
    assert store.path(record.outputs["result"]).read_text() == "epoch 3"


def test_time_limit(store):
    with pytest.raises(ToolchainError, match="time limit"):
        execute(store, call("sleep", Words(seconds=60), time_limit_s=1.0), silent)


def test_memory_limit(store):
    with pytest.raises(ToolchainError, match="memory limit"):
        execute(store, call("fill", Words(megabytes=400, seconds=30), memory_limit_bytes=200 << 20), silent)


def test_a_declared_output_must_exist(store):
    with pytest.raises(InvariantError, match="did not write"):
        execute(store, call("undeclared"), silent)


def test_steps_of_one_framework_share_a_process_and_measurements_share_none(store):
    def pid(text: str, **changes) -> int:
        return execute(store, call("upper", Words(text=text), **changes), silent).record.facts["pid"]

    try:
        heavy = pid("a", framework="heavy")
        assert pid("b", framework="heavy") == heavy
        assert pid("c") not in {heavy, pid("d", exclusive=True)}
        assert pid("e", exclusive=True) != pid("f", exclusive=True)
    finally:
        release_workers()


def test_progress_is_reported(store):
    seen = []
    execute(store, call("upper", Words(text="abc")), lambda fraction, message: seen.append((fraction, message)))
    assert (1.0, "done") in seen


def _same_step(root: str, queue) -> None:
    execution = execute(Store(Path(root)), call("sleep", Words(seconds=1.5)), silent)
    queue.put(execution.cached)


def test_two_runs_that_want_the_same_step_do_it_once(store):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    runs = [context.Process(target=_same_step, args=(str(store.root), queue)) for _ in range(2)]
    for run in runs:
        run.start()
    assert sorted(queue.get(timeout=60) for _ in runs) == [False, True]
    for run in runs:
        run.join()
