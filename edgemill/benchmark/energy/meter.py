"""What an energy meter is, and how a counter that wraps or a sensor of power becomes one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from edgemill.errors import ToolchainError


class Covers(StrEnum):
    """What a meter's figure includes, as far as inference on the CPU is concerned."""

    CPU = "cpu"
    """The processor, and what the scope says beside it."""
    SYSTEM = "system"
    """The whole device, or the rails that feed it."""
    GPU = "gpu"
    """An accelerator; says nothing of a model that runs on the CPU."""


class EnergyMeter(Protocol):
    """Counts the energy that a device uses.

    Attributes:
        name: which sensor, e.g. `rapl-powercap`.
        source: label of its figures (design rule 7), e.g. `measured:rapl`.
        scope: in words, what is inside the figure and what is not.
        covers: the same as one of few values.
        update_s: how often the sensor gives a new value; shorter windows are not measured.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def source(self) -> str: ...  # noqa: D102
    @property
    def scope(self) -> str: ...  # noqa: D102
    @property
    def covers(self) -> Covers: ...  # noqa: D102
    @property
    def update_s(self) -> float: ...  # noqa: D102

    def read(self) -> float:
        """Joules since some moment before the first call; never falls.

        A counter that wraps must be read more often than it wraps: every 5 minutes for RAPL at 200 W.

        Raises:
            ToolchainError: the sensor can no longer be read.
        """

    def close(self) -> None:
        """Let go of what the meter holds; it can be read no more."""


class Unusable(NamedTuple):
    """A kind of sensor that gives nothing here, and why."""

    name: str
    reason: str


class Found(NamedTuple):
    """Outcome of a search."""

    meters: tuple[EnergyMeter, ...]
    unusable: tuple[Unusable, ...]


def absent(name: str, reason: str) -> Found:
    """A search that found nothing."""
    return Found((), (Unusable(name, reason),))


class Counter:
    """Sum of the steps of a counter that runs from 0 up to some range and begins anew.

    Args:
        read: the counter, in units of `joules_per_unit`.
        joules_per_unit: e.g. 1e-6 for microjoules.
        period: units after which it begins at 0 again; None for a counter that never does.
        name: for the message of an error.
    """

    def __init__(self, read: Callable[[], int], joules_per_unit: float, period: int | None, name: str) -> None:
        self._read = read
        self._scale = joules_per_unit
        self._period = period
        self._name = name
        self._last = read()
        self._units = 0

    def joules(self) -> float:
        """Joules since this object was made.

        Raises:
            ToolchainError: a counter without a range ran backwards (its driver was loaded anew).
        """
        value = self._read()
        step = value - self._last
        if step < 0:
            if self._period is None:
                raise ToolchainError(
                    "An energy counter ran backwards.",
                    where=self._name,
                    expected=f"at least {self._last}",
                    got=str(value),
                    remedy="measure again; the driver was reset meanwhile",
                )
            step %= self._period
        self._last = value
        self._units += step
        return self._units * self._scale


class CounterMeter:
    """A meter made of counters of energy that do not overlap."""

    def __init__(
        self,
        name: str,
        source: str,
        scope: str,
        covers: Covers,
        update_s: float,
        counters: tuple[Counter, ...],
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """See `EnergyMeter`; `close` lets go of what the counters hold."""
        self.name = name
        self.source = source
        self.scope = scope
        self.covers = covers
        self.update_s = update_s
        self._counters = counters
        self._close = close

    def read(self) -> float:
        """See `EnergyMeter.read`."""
        return sum(counter.joules() for counter in self._counters)

    def close(self) -> None:
        """See `EnergyMeter.close`."""
        self._close()


class PowerMeter:
    """A meter that integrates a sensor of power over time (trapezoids between samples).

    From the first `read` on, a thread takes a sample every `update_s`; make that first call before the
    process is pinned to the core that is measured, so that the thread can run beside it.

    Args:
        watts: the sensor.
        clock: seconds; another than the system's goes with `sampling=False`.
        sampling: whether the thread runs; without it a sample is taken at every `read` alone.
    """

    def __init__(
        self,
        name: str,
        source: str,
        scope: str,
        covers: Covers,
        update_s: float,
        watts: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
        sampling: bool = True,
    ) -> None:
        """See `EnergyMeter`."""
        self.name = name
        self.source = source
        self.scope = scope
        self.covers = covers
        self.update_s = update_s
        self._watts = watts
        self._clock = clock
        self._sampling = sampling
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._last: tuple[float, float] | None = None
        self._joules = 0.0
        self._error: ToolchainError | None = None

    def read(self) -> float:
        """See `EnergyMeter.read`."""
        with self._lock:
            if self._error is not None:
                raise self._error
            self._sample()
            if self._sampling and self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"meter {self.name}", daemon=True)
                self._thread.start()
            return self._joules

    def close(self) -> None:
        """See `EnergyMeter.close`."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._end.wait(self.update_s):
            with self._lock:
                try:
                    self._sample()
                except ToolchainError as error:
                    self._error = error
                    return

    def _sample(self) -> None:
        watts = self._watts()
        now = self._clock()
        if self._last is not None:
            then, before = self._last
            self._joules += (watts + before) / 2 * (now - then)
        self._last = now, watts
