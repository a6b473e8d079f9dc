"""What a sustained run records, window by window, and its file."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """One stretch of the run.

    Attributes:
        start_s: from the start of the run.
        length_s: duration.
        calls: inferences.
        p50_ms: median latency of one call.
        p95_ms: 95th percentile.
        temperature_c: at its end, NaN where it cannot be read.
        mhz: clock at its end, NaN where it cannot be read.
        joules: energy of the device during it, NaN where there is no meter.
        taken: share of it in which other programs or the hypervisor had the cores, NaN where the system
            does not tell.
    """

    start_s: float
    length_s: float
    calls: int
    p50_ms: float
    p95_ms: float
    temperature_c: float
    mhz: float
    joules: float
    taken: float


@dataclass
class Recording:
    """What a run has measured so far; an interrupted run leaves a shorter one.

    Attributes:
        windows: in order of time.
        idle_w: power of the idle device before the run, None without a meter.
        meter_error: why the meter failed during the run.
    """

    windows: list[Window]
    idle_w: float | None = None
    meter_error: str | None = None

    def column(self, name: str) -> NDArray[np.float64]:
        """One attribute of all windows, float64 (n,)."""
        return np.array([getattr(window, name) for window in self.windows], np.float64)

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """All attributes of all windows by name, float64 (n,) each."""
        return {field.name: self.column(field.name) for field in fields(Window)}

    def thinned(self, most: int) -> dict[str, list[float | None]]:
        """Every k-th window, at most `most` of them, by name; None where nothing was read."""
        stride = max(1, -(-len(self.windows) // most))
        return {
            name: [value if math.isfinite(value) else None for value in values[::stride].tolist()]
            for name, values in self.columns().items()
        }


def save_series(path: Path, recording: Recording) -> None:
    """Write every attribute of the windows as an array of an .npz file, float64 (windows,)."""
    columns: dict[str, Any] = recording.columns()
    with path.open("wb") as stream:
        np.savez_compressed(stream, **columns)


def load_series(path: Path) -> Recording:
    """Read what `save_series` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        columns = {field.name: arrays[field.name].tolist() for field in fields(Window)}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return Recording([Window(**(row | {"calls": int(row["calls"])})) for row in rows])
