"""Progress of running steps, from the tasks to whoever shows it (terminal, Prefect)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

State = Literal["running", "done", "cached", "failed", "note"]


@dataclass(frozen=True)
class Progress:
    """Where a step stands.

    Attributes:
        label: step and what it works on, e.g. `quantize.static distill -> raspberry-pi-5`.
        state: of the step; a note is for people only.
        fraction: 0..1, or None while unknown.
    """

    label: str
    state: State
    fraction: float | None = None
    message: str = ""
    wall_s: float | None = None


class Tally:
    """Steps that ran, that were found in the store, and that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.run = 0
        self.cached = 0
        self.failed = 0

    def count(self, progress: Progress) -> None:
        """Take note of a step's end."""
        with self._lock:
            self.run += progress.state == "done"
            self.cached += progress.state == "cached"
            self.failed += progress.state == "failed"


Listener = Callable[[Progress], None]
_LISTENERS: list[Listener] = []


def publish(progress: Progress) -> None:
    """Tell every listener."""
    for listener in tuple(_LISTENERS):
        listener(progress)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` for every progress while the context lasts."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)
