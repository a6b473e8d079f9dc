"""The ledger of a run: what every step made, as digests, in the order in which the run asked for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemill.artifact import Frozen, digest_text
from edgemill.errors import RecipeError
from edgemill.store import StepRecord

FILE = "steps.json"
"""Its name in the output folder of a run."""

INCIDENTAL = frozenset({"seconds", "resumed_from"})
"""Facts, at any depth, that tell of the execution and not of the result."""


class Entry(Frozen):
    """One step of a run.

    Attributes:
        label: step and what it works on, e.g. `quantize.static distill -> raspberry-pi-5`.
        settings: digest of the settings.
        facts: digest of every fact by name, without what is `INCIDENTAL`.
        varies: why another run gives other outputs; empty for a deterministic step.
        after_varying: whether a step that varies came before it, so that its result may have decided
            that this one runs at all.
    """

    label: str
    step: str
    version: int
    key: str
    settings: str
    seed: int
    tools: dict[str, str]
    extra: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, str]
    varies: str
    after_varying: bool


_DIGITS = 16  # of the digests of settings and facts, which name nothing and are only compared
_ENTRIES = TypeAdapter(tuple[Entry, ...])


class Ledger:
    """Collects the steps of one run; may be written by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}

    def note(self, label: str, record: StepRecord) -> None:
        """Take note of a step's record, found or made; what was asked for twice counts once."""
        with self._lock:
            after = any(entry.varies for entry in self._entries.values())
            self._entries.setdefault((label, record.key), _entry(label, record, after))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """In the order of `note`."""
        with self._lock:
            return tuple(self._entries.values())

    def text(self) -> str:
        """The ledger as JSON."""
        return _ENTRIES.dump_json(self.entries, indent=1).decode()


def read_ledger(folder: Path) -> tuple[Entry, ...]:
    """The ledger of a finished run.

    Args:
        folder: its output folder.

    Raises:
        RecipeError: there is none, or it cannot be read.
    """
    path = folder / FILE
    try:
        return _ENTRIES.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RecipeError(
            "The steps of the run are not known.",
            where=str(path),
            expected="the output folder of a finished run",
            got=error.strerror if isinstance(error, OSError) else f"{error.error_count()} values that do not fit",
            remedy="run it again with this version; that records them",
        ) from error


def _entry(label: str, record: StepRecord, after_varying: bool) -> Entry:
    return Entry(
        label=label,
        step=record.step,
        version=record.version,
        key=record.key,
        settings=_digest(record.settings),
        seed=record.seed,
        tools=record.tools,
        extra=record.extra,
        inputs=record.inputs,
        outputs={name: output.digest for name, output in record.outputs.items()},
        facts={name: _digest(_lasting(value)) for name, value in record.facts.items() if name not in INCIDENTAL},
        varies=record.varies,
        after_varying=after_varying,
    )


def _lasting(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _lasting(item) for key, item in value.items() if key not in INCIDENTAL}
    return [_lasting(item) for item in value] if isinstance(value, list | tuple) else value


def _digest(value: Any) -> str:
    # not the canonical form: facts may hold NaN
    return digest_text(json.dumps(value, sort_keys=True))[:_DIGITS]
