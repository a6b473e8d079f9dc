"""Two runs are compared by what each step made; what is not deterministic says so and is left out."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from edgemill.artifact import Artifact
from edgemill.benchmark.host import fingerprint
from edgemill.errors import RecipeError
from edgemill.execute import execute, release_workers
from edgemill.ledger import FILE, Ledger, read_ledger
from edgemill.recipe import load_recipe
from edgemill.reproduce import Outcome, changes, compare, render, selected_files
from edgemill.store import StepRecord, Store
from edgemill.toolchains import load_toolchain
from tests.core.test_execute import SUPPORT, call, silent
from tests.support.edgemill_test_steps import Words

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "recipe.yaml"
MEASURES = "it measures"


def record(step: str, made: str, *, facts=None, settings=None, inputs=None, varies="", extra=None) -> StepRecord:
    digest = made.encode().hex().ljust(64, "0")
    return StepRecord(
        key=(step + made).encode().hex().ljust(64, "0")[:64],
        step=step,
        version=1,
        settings=settings or {},
        inputs=inputs or {},
        outputs={"model": Artifact(digest=digest, filename="m", kind="onnx", size_bytes=1, step=step)},
        facts=facts or {},
        tools={"numpy": "2"},
        seed=0,
        extra=extra or {},
        varies=varies,
        wall_s=0.0,
        finished_at="2026-01-01T00:00:00+00:00",
    )


def ledger(*notes: tuple[str, StepRecord]) -> Ledger:
    written = Ledger()
    for label, item in notes:
        written.note(label, item)
    return written


def outcomes(old: Ledger, new: Ledger) -> dict[str, Outcome]:
    return {row.label: row.outcome for row in compare(old.entries, new.entries).rows}


def test_a_ledger_comes_back_from_its_file(tmp_path):
    written = ledger(("a", record("load", "x", facts={"nan": math.nan})), ("b", record("bench", "y", varies=MEASURES)))
    (tmp_path / FILE).write_text(written.text())
    assert read_ledger(tmp_path) == written.entries
    with pytest.raises(RecipeError, match="not known"):
        read_ledger(tmp_path / "elsewhere")
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(RecipeError, match="not known"):
        read_ledger(tmp_path)


def test_a_step_asked_for_twice_is_noted_once():
    item = record("load", "x")
    assert len(ledger(("a", item), ("a", item), ("b", item)).entries) == 2


def test_times_and_interruptions_are_no_difference():
    facts = {"score": 0.9, "history": {"resumed_from": None, "epochs": [{"loss": 1.0, "seconds": 3.1}]}}
    other = {"score": 0.9, "history": {"resumed_from": 2, "epochs": [{"loss": 1.0, "seconds": 4.2}]}}
    worse = {"score": 0.9, "history": {"resumed_from": 2, "epochs": [{"loss": 1.1, "seconds": 4.2}]}}
    base = ledger(("train", record("train", "x", facts=facts)))
    assert compare(base.entries, ledger(("train", record("train", "x", facts=other))).entries).same
    differing = compare(base.entries, ledger(("train", record("train", "x", facts=worse))).entries)
    assert not differing.same
    assert differing.rows[0].detail == "fact history"


def test_the_first_cause_is_told_from_what_follows_of_it():
    data = "d" * 64
    old = ledger(("load", record("load", "x")), ("q", record("q", "a", inputs={"model": data})))
    new = ledger(("load", record("load", "y")), ("q", record("q", "b", inputs={"model": "e" * 64})))
    assert outcomes(old, new) == {"load": Outcome.DIFFERS, "q": Outcome.FOLLOWS}
    text = render(compare(old.entries, new.entries))
    assert "differs  load: output model" in text
    assert "with another input model" in text
    assert text.splitlines()[-1] == "differs: 2 of 2 deterministic steps"


def chain_after(made: str, *, varies: str, settings=None) -> Ledger:
    """A step, what takes its output, and what takes that."""
    first = record("compile", made, varies=varies)
    second = record("figures", f"2{made}", inputs={"variant": first.outputs["model"].digest}, settings=settings)
    third = record("gate", f"3{made}", inputs={"answers": second.outputs["model"].digest})
    return ledger(("c", first), ("f", second), ("g", third))


def test_what_takes_the_output_of_a_step_that_varies_is_not_compared():
    old, new = (chain_after(made, varies="uninitialized bytes") for made in "ab")
    assert set(outcomes(old, new).values()) == {Outcome.VARIES}
    assert compare(old.entries, new.entries).same
    assert "what a step that varies has made" in render(compare(old.entries, new.entries))
    old, new = (chain_after(made, varies="") for made in "ab")
    assert list(outcomes(old, new).values()) == [Outcome.DIFFERS, Outcome.FOLLOWS, Outcome.FOLLOWS]
    changed = chain_after("b", varies="uninitialized bytes", settings={"another": 1})
    assert outcomes(chain_after("a", varies="uninitialized bytes"), changed)["f"] is Outcome.FOLLOWS


def test_steps_of_one_label_are_matched_by_their_settings_and_not_by_their_order():
    one, two = (record("static", text, settings={"type": text}) for text in ("uint8", "int8"))
    assert compare(ledger(("q", one), ("q", two)).entries, ledger(("q", two), ("q", one)).entries).same
    changed = record("static", "int8", settings={"type": "other"})
    assert outcomes(ledger(("q", one)), ledger(("q", changed))) == {"q": Outcome.DIFFERS}


def test_what_varies_and_what_it_decides_is_not_compared_but_what_is_missing_without_a_reason_is():
    load, bench, gate = record("load", "x"), record("bench", "m", varies=MEASURES), record("gate", "g")
    other = record("bench", "n", varies=MEASURES)
    old, new = ledger(("l", load), ("b", bench), ("g", gate)), ledger(("l", load), ("b", other))
    assert outcomes(old, new) == {"l": Outcome.SAME, "b": Outcome.VARIES, "g": Outcome.CONDITIONAL}
    assert outcomes(new, old)["g"] is Outcome.CONDITIONAL
    assert compare(old.entries, new.entries).same
    assert f"1: {MEASURES}" in render(compare(old.entries, new.entries))
    assert outcomes(ledger(("l", load), ("g", gate)), ledger(("l", load))) == {"l": Outcome.SAME, "g": Outcome.MISSING}
    assert not compare(ledger(("g", gate)).entries, ()).same


def test_real_steps_in_two_stores_and_one_that_says_that_it_varies(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    ledgers = [Ledger(), Ledger()]
    for number, written in enumerate(ledgers):
        store = Store(tmp_path / str(number))
        for name in ("upper", "number"):
            varying = "" if name == "upper" else "it tells the number of its process"
            wanted = call(name, Words(text="a"))
            wanted = replace(wanted, step=replace(wanted.step, varies=varying))
            written.note(name, execute(store, wanted, silent).record)
        release_workers()
    comparison = compare(ledgers[0].entries, ledgers[1].entries)
    found = {row.label: row.outcome for row in comparison.rows}
    assert found == {"upper": Outcome.DIFFERS, "number": Outcome.VARIES}  # `upper` tells its process as a fact
    assert comparison.rows[0].detail == "fact pid"


# -- what a run started from ---------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path):
    """An output folder with a recorded run of the digits example: only what `changes` looks at."""
    from edgemill.artifact import digest_path
    from edgemill.data import source_digest

    recipe = load_recipe(DIGITS)
    machine = {name: str(value) for name, value in fingerprint().items()}
    (tmp_path / "summary.json").write_text(
        json.dumps({"environment": machine, "targets": [{"target": "t", "selected": "ab"}]})
    )
    checkpoint = digest_path(DIGITS.parent / "digits.keras")
    notes = (
        ("load", record("data.load", "x", extra={"source": source_digest(recipe.data)})),
        ("ingest", record("ingest.checkpoint", "y", inputs={"checkpoint": checkpoint})),
    )
    return tmp_path, recipe, notes


def with_tools(item: StepRecord) -> StepRecord:
    import numpy

    return item.model_copy(update={"tools": {"numpy": numpy.__version__}})


def test_nothing_has_changed(run):
    folder, recipe, notes = run
    same = ledger(*((label, with_tools(item)) for label, item in notes))
    assert changes(folder, recipe, same.entries) == []
    assert selected_files(folder) == {"t": "ab"}


def test_every_change_is_named(run):
    folder, recipe, notes = run
    (label, load), (other, ingest) = notes
    wrong = ledger(
        (label, load.model_copy(update={"extra": {"source": "1" * 64}, "tools": {"numpy": "1.0"}})),
        (other, with_tools(ingest).model_copy(update={"tools": {}, "inputs": {"checkpoint": "2" * 64}})),
    )
    found = {change.what: change for change in changes(folder, recipe, wrong.entries)}
    assert set(found) == {"data", "checkpoint", "numpy"}
    assert found["numpy"].recorded == "1.0"
    assert [found[name].content for name in ("data", "checkpoint", "numpy")] == [True, True, False]


def in_toolchain(digest: str) -> StepRecord:
    made = record("compile.vela", "v", extra={"toolchain": digest})
    return made.model_copy(update={"tools": {"ethos-u-vela": "5.2.0", "numpy": "1.0"}})


def test_versions_of_a_toolchain_are_those_of_its_lock(run, tmp_path, monkeypatch):
    folder, recipe, notes = run
    usual = [(label, with_tools(item)) for label, item in notes]
    vela = load_toolchain("vela")
    ours = ledger(*usual, ("vela", in_toolchain(vela.digest)))
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path))
    (absent,) = changes(folder, recipe, ours.entries)
    assert (absent.what, absent.content) == ("toolchain vela", False)
    assert "edgemill targets install vela" in absent.found
    (tmp_path / "vela" / "bin").mkdir(parents=True)
    (tmp_path / "vela" / "bin" / "python").touch()
    manifest = {"name": "vela", "digest": vela.digest, "python": platform.python_version()}
    (tmp_path / "vela" / "toolchain.json").write_text(json.dumps(manifest))
    assert changes(folder, recipe, ours.entries) == []
    (other,) = changes(folder, recipe, ledger(*usual, ("vela", in_toolchain("0" * 64))).entries)
    assert other.what == "toolchain of compile.vela"


def test_a_missing_checkpoint_is_a_change_that_says_so(run, tmp_path):
    folder, recipe, notes = run
    moved = recipe.model_copy(
        update={"checkpoint": recipe.checkpoint.model_copy(update={"path": str(tmp_path / "gone.keras")})}
    )
    found = changes(folder, moved, ledger(*((label, with_tools(item)) for label, item in notes)).entries)
    assert [change.what for change in found] == ["checkpoint"]
    assert "gone.keras" in found[0].found


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="summary"):
        selected_files(tmp_path)
