"""Comparison of a run with its repetition, step by step, and of what it started from with what is here now."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgemill.artifact import Frozen, digest_path
from edgemill.benchmark.host import fingerprint
from edgemill.data import source_digest
from edgemill.errors import EdgemillError, RecipeError
from edgemill.ingest.companions import checkpoint_files
from edgemill.lack import told
from edgemill.ledger import Entry
from edgemill.recipe import Recipe
from edgemill.step import tool_versions
from edgemill.toolchains import installed, load_toolchain, toolchain_names

_TOOLCHAIN = "toolchain"  # identity of a step that ran in an environment of its own
_AFTER_VARYING = "it takes what a step that varies has made"
_MACHINE = ("arch", "cpu", "flags", "cores")


class Outcome(StrEnum):
    """What became of a step in the repetition."""

    SAME = "same"
    DIFFERS = "differs"
    FOLLOWS = "follows"
    """It differs because one of its inputs does."""
    VARIES = "varies"
    """It is not deterministic, or takes what such a step has made, and says so; not compared."""
    CONDITIONAL = "conditional"
    """Only one of the runs has it, and a step that varies decides whether it runs; not compared."""
    MISSING = "missing"
    """Only one of the runs has it, and nothing explains that."""


_FAULTS = (Outcome.DIFFERS, Outcome.FOLLOWS, Outcome.MISSING)


class Row(Frozen):
    """One step in both runs."""

    label: str
    step: str
    outcome: Outcome
    detail: str = ""


class Change(Frozen):
    """Something a run started from that is not the same any more."""

    what: str
    recorded: str
    found: str
    content: bool
    """Checkpoint or data: there is nothing to repeat with another one."""


class Comparison(Frozen):
    """A run and its repetition."""

    rows: tuple[Row, ...]
    selected: dict[str, tuple[str | None, str | None]]
    """Chosen file of every target, recorded and repeated; measurements have a say in it."""

    @property
    def same(self) -> bool:
        """Whether every deterministic step gave what it gave before."""
        return not any(row.outcome in _FAULTS for row in self.rows)

    def count(self, outcome: Outcome) -> int:
        """Steps with an outcome."""
        return sum(row.outcome is outcome for row in self.rows)


def changes(folder: Path, recipe: Recipe, recorded: Sequence[Entry]) -> list[Change]:
    """What a run started from and is another now: checkpoint, data, versions, machine.

    Args:
        folder: output folder of the run.
        recipe: as recorded there.
        recorded: the run's ledger.

    Raises:
        RecipeError: the summary of the run cannot be read.
    """
    found: list[Change] = []
    for entry in recorded:
        if "checkpoint" in entry.inputs and entry.step.startswith("ingest."):
            found += _changed("checkpoint", entry.inputs["checkpoint"], _checkpoint(recipe), content=True)
        if "source" in entry.extra and entry.step.startswith("data."):
            found += _changed("data", entry.extra["source"], _source(recipe), content=True)
    environment = _summary(folder)["environment"]
    own = [entry for entry in recorded if _TOOLCHAIN not in entry.extra]
    versions = {name: version for entry in own for name, version in entry.tools.items()}
    versions |= {name: environment[name] for name in ("edgemill", "python") if name in environment}
    here = tool_versions(tuple(versions)) | {"python": platform.python_version()}
    for name, version in sorted(versions.items()):
        found += _changed(name, version, here[name], content=False)
    found += _toolchains(recorded)
    for name, value in fingerprint().items():
        if name in _MACHINE and name in environment:
            found += _changed(name, environment[name], str(value), content=False)
    return found


def _toolchains(recorded: Sequence[Entry]) -> list[Change]:
    """Toolchains whose lock is another now, or that are not installed."""
    steps = {digest: entry.step for entry in recorded if (digest := entry.extra.get(_TOOLCHAIN)) is not None}
    known = {load_toolchain(name).digest: name for name in toolchain_names()}
    found: list[Change] = []
    for digest, step in steps.items():
        if digest not in known:
            found += _changed(f"toolchain of {step}", f"lock {digest[:12]}", "another lock", content=False)
        elif lacks := installed(known[digest]).lacks:
            found += _changed(f"toolchain {known[digest]}", "installed", told(lacks), content=False)
    return found


def compare(
    recorded: Sequence[Entry],
    repeated: Sequence[Entry],
    selected: dict[str, tuple[str | None, str | None]] | None = None,
) -> Comparison:
    """Match the steps of two runs by label and settings, and compare what they made.

    A label says the step and its place in the chain; the settings decide where several steps have
    one label. The cache key does not: it changes with every input.

    Args:
        recorded: ledger of the run.
        repeated: ledger of its repetition.
        selected: chosen file of every target in both.
    """
    rows: list[Row] = []
    varying: set[str] = set()
    for old, new in _matched(recorded, repeated):
        row = _row(old, new, varying)
        rows.append(row)
        if row.outcome is Outcome.VARIES:
            varying |= {digest for entry in (old, new) if entry is not None for digest in entry.outputs.values()}
    return Comparison(rows=tuple(rows), selected=selected or {})


def _matched(recorded: Iterable[Entry], repeated: Iterable[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    waiting: dict[str, list[Entry]] = {}
    for entry in repeated:
        waiting.setdefault(entry.label, []).append(entry)
    alone: list[Entry] = []
    for entry in recorded:
        twin = next((item for item in waiting.get(entry.label, ()) if item.settings == entry.settings), None)
        if twin is None:
            alone.append(entry)
        else:
            waiting[entry.label].remove(twin)
            yield entry, twin
    labels = Counter(entry.label for entry in alone)
    for entry in alone:
        rest = waiting.get(entry.label, [])
        yield entry, rest.pop() if len(rest) == labels[entry.label] == 1 else None
    yield from ((None, entry) for rest in waiting.values() for entry in rest)


def _row(old: Entry | None, new: Entry | None, varying: Set[str]) -> Row:
    """Compare one step.

    Args:
        varying: outputs of steps that vary, and of those that follow from them, which stand before it.
    """
    entry = old or new
    assert entry is not None
    if entry.varies:
        return Row(label=entry.label, step=entry.step, outcome=Outcome.VARIES, detail=entry.varies)
    if old is None or new is None:
        where = "only in the recorded run" if new is None else "only in the repetition"
        if entry.after_varying:
            outcome, detail = Outcome.CONDITIONAL, f"{where}: measurements decide which candidates are tested"
        else:
            outcome, detail = Outcome.MISSING, where
        return Row(label=entry.label, step=entry.step, outcome=outcome, detail=detail)
    differing = [
        *(f"output {name}" for name in _differing(old.outputs, new.outputs)),
        *(f"fact {name}" for name in _differing(old.facts, new.facts)),
    ]
    if not differing:
        return Row(label=entry.label, step=entry.step, outcome=Outcome.SAME)
    changed = _differing(old.inputs, new.inputs)
    causes = [
        *(f"input {name}" for name in changed),
        *(["settings"] if old.settings != new.settings else []),
        *(["version of the step"] if old.version != new.version else []),
        *(name for name in _differing(old.tools, new.tools)),
        *(name for name in _differing(old.extra, new.extra)),
    ]
    if changed and len(causes) == len(changed) and all(old.inputs.get(name) in varying for name in changed):
        return Row(label=entry.label, step=entry.step, outcome=Outcome.VARIES, detail=_AFTER_VARYING)
    detail = ", ".join(differing) + (f"; with another {', '.join(causes)}" if causes else "")
    return Row(
        label=entry.label,
        step=entry.step,
        outcome=Outcome.FOLLOWS if changed else Outcome.DIFFERS,
        detail=detail,
    )


def _differing(old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def render(comparison: Comparison) -> str:
    """Text for a terminal: what differs in full, what is the same as one line a step, the verdict."""
    per_step: dict[str, list[Row]] = {}
    for row in comparison.rows:
        per_step.setdefault(row.step, []).append(row)
    width = max((len(step) for step in per_step), default=0)
    lines = [f"{'step':<{width}}  {'same':>5} {'other':>6}  not compared"]
    for step, rows in per_step.items():
        same = sum(row.outcome is Outcome.SAME for row in rows)
        faults = sum(row.outcome in _FAULTS for row in rows)
        rest = [row for row in rows if row.outcome in (Outcome.VARIES, Outcome.CONDITIONAL)]
        reasons = "; ".join(sorted({row.detail for row in rest}))
        lines.append(f"{step:<{width}}  {same:>5} {faults:>6}  {f'{len(rest)}: {reasons}' if rest else ''}".rstrip())
    lines += [f"{row.outcome.value:<8} {row.label}: {row.detail}" for row in comparison.rows if row.outcome in _FAULTS]
    for target, (recorded, repeated) in comparison.selected.items():
        if recorded != repeated:
            lines.append(
                f"another file is chosen for {target}: {_short(recorded)}, now {_short(repeated)} (what varies decides)"
            )
    compared = sum(row.outcome is Outcome.SAME or row.outcome in _FAULTS for row in comparison.rows)
    lines.append(
        f"the same: all {compared} deterministic steps gave the same digests"
        if comparison.same
        else f"differs: {compared - comparison.count(Outcome.SAME)} of {compared} deterministic steps"
    )
    return "\n".join(lines)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def selected_files(folder: Path) -> dict[str, str | None]:
    """Digest of the chosen file of every target.

    Raises:
        RecipeError: the summary in this output folder cannot be read.
    """
    return {target["target"]: target["selected"] for target in _summary(folder)["targets"]}


def _summary(folder: Path) -> Any:
    path = folder / "summary.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(
            "The summary of the run cannot be read.",
            where=str(path),
            expected="the output folder of a finished run",
            got=str(error),
            remedy="give the folder of `edgemill optimize --out`, or the id of its MLflow run",
        ) from error


def _changed(what: str, recorded: str, found: str, *, content: bool) -> list[Change]:
    return [] if recorded == found else [Change(what=what, recorded=recorded, found=found, content=content)]


def _checkpoint(recipe: Recipe) -> str:
    try:
        with checkpoint_files(Path(recipe.checkpoint.path), recipe.checkpoint.max_bytes) as source:
            return digest_path(source)
    except (EdgemillError, OSError) as error:
        return _unreadable(error, recipe.checkpoint.path)


def _source(recipe: Recipe) -> str:
    try:
        return source_digest(recipe.data)
    except (EdgemillError, OSError) as error:
        return _unreadable(error, recipe.data.path or recipe.data.source)


def _unreadable(error: Exception, path: str) -> str:
    return f"{error.what if isinstance(error, EdgemillError) else error} ({path})"
