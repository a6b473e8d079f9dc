"""What a sustained run says: first minute, steady state, throttling."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import astuple, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark import SustainedSettings
from edgemill.benchmark.energy.envelope import estimate_energy
from edgemill.benchmark.energy.facts import energy_source
from edgemill.benchmark.energy.meter import EnergyMeter
from edgemill.benchmark.heat import Sensors
from edgemill.benchmark.sustained_series import Recording, Window
from edgemill.benchmark.throttle import PENALTY, RISE, find_throttle
from edgemill.targets.provenance import provenance
from edgemill.targets.spec import Target

FIRST_S = 60.0
SHORTEST_FOR_STEADY_S = 120.0

_STEADY_SHARE = 1 / 3
_SETTLED = 0.05
_SECONDS = 60.0


def summarize(
    recording: Recording, sensors: Sensors, meter: EnergyMeter | None, settings: SustainedSettings
) -> dict[str, Any]:
    """Facts of a run.

    Returns:
        `first_minute` and `steady_state`, each with `from_s`, `to_s`, `p50_ms` and `p95_ms` (medians
        over its windows), `temperature_c`, `mhz`, `taken`, `power_w`, `energy_mj` (of one call above idle), None
        where unknown, and `calls`; the steady state is the last third of the run, at least a minute, with
        `settled` (its halves differ by less than 5 % in latency), and None with a reason in
        `steady_state_missing` for runs below two minutes.
        `throttle_onset_s`, `throttle_evidence`, `slowdown` as in `Throttle`; `change_point` names the
        method and its constants; `peak_temperature_c`, `idle_w`, `energy_source`, `energy_meter`,
        `energy_scope`, and without a meter the fields of `EnergyEstimate`; `sensors` by what they tell
        and `sensors_missing` with reasons; `source` of the times (design rule 7); `minutes` as run,
        `windows`, `window_s`, `threads`, `batch`.
    """
    missing = dict(sensors.missing)
    if not sensors.clocks_follow and _constant(recording.column("mhz")):
        missing["frequency"] = "`cpu MHz` in /proc/cpuinfo never changes here, as in many virtual machines"
        recording = replace(recording, windows=[replace(window, mhz=math.nan) for window in recording.windows])
    if recording.meter_error:
        missing["energy"] = recording.meter_error
    windows = recording.windows
    total = windows[-1].start_s + windows[-1].length_s
    throttle = find_throttle(
        recording.column("start_s"),
        recording.column("p50_ms"),
        recording.column("temperature_c"),
        recording.column("mhz"),
        recording.column("taken"),
    )
    first = _period([window for window in windows if window.start_s < FIRST_S], recording.idle_w)
    steady, lacks = _steady(windows, total, recording.idle_w)
    source = provenance(settings.target, platform.machine()) if settings.target else "measured:native"
    facts: dict[str, Any] = {
        "first_minute": first,
        "steady_state": steady,
        "steady_state_missing": lacks,
        "change_point": {"method": "PELT, squared error on log latency", "penalty": PENALTY, "rise": RISE},
        "peak_temperature_c": _highest(recording.column("temperature_c")),
        "idle_w": recording.idle_w,
        "sensors": {
            "temperature": [sensor.name for sensor in sensors.temperatures],
            "frequency": [] if "frequency" in missing else [sensor.name for sensor in sensors.clocks],
            "energy": [meter.name] if meter else [],
        },
        "sensors_missing": missing,
        "source": source,
        "minutes": total / _SECONDS,
        "windows": len(windows),
        "window_s": settings.window_s,
        "threads": settings.threads,
        "batch": settings.batch,
    }
    facts |= throttle.model_dump(mode="json")
    return facts | _energy_facts(meter, settings.target, settings.threads, source, (steady or first)["p50_ms"])


def _steady(windows: Sequence[Window], total: float, idle_w: float | None) -> tuple[dict[str, Any] | None, str | None]:
    if total < SHORTEST_FOR_STEADY_S:
        return None, f"the run took {total:.0f} s; a steady state is stated from {SHORTEST_FOR_STEADY_S:.0f} s on"
    start = total - max(FIRST_S, _STEADY_SHARE * total)
    chosen = [window for window in windows if window.start_s >= start]
    half = len(chosen) // 2
    if not half:
        return None, "a single call takes a large part of the run; run it for longer"
    early, late = (float(np.median([window.p50_ms for window in part])) for part in (chosen[:half], chosen[half:]))
    return _period(chosen, idle_w) | {"settled": abs(late / early - 1) < _SETTLED}, None


def _period(windows: Sequence[Window], idle_w: float | None) -> dict[str, Any]:
    table = np.array([astuple(window) for window in windows], np.float64)
    column = {field.name: table[:, index] for index, field in enumerate(fields(Window))}
    metered = ~np.isnan(column["joules"])
    seconds, joules = column["length_s"][metered].sum(), column["joules"][metered].sum()
    calls = column["calls"][metered].sum()
    return {
        "from_s": windows[0].start_s,
        "to_s": windows[-1].start_s + windows[-1].length_s,
        "calls": int(column["calls"].sum()),
        "p50_ms": float(np.median(column["p50_ms"])),
        "p95_ms": float(np.median(column["p95_ms"])),
        "temperature_c": _median(column["temperature_c"]),
        "mhz": _median(column["mhz"]),
        "taken": _median(column["taken"]),
        "power_w": float(joules / seconds) if calls else None,
        "energy_mj": float((joules - idle_w * seconds) / calls * 1e3) if calls and idle_w is not None else None,
    }


def _energy_facts(
    meter: EnergyMeter | None, target: Target | None, threads: int, source: str, latency_ms: float
) -> dict[str, Any]:
    if meter is not None:
        return {
            "energy_source": energy_source(meter, target),
            "energy_meter": meter.name,
            "energy_scope": meter.scope,
        }
    estimate = estimate_energy(target, latency_ms, threads, source) if target else None
    return estimate.model_dump() if estimate else {}


def _constant(values: NDArray[np.float64]) -> bool:
    known = values[~np.isnan(values)]
    return len(known) > 0 and bool((known == known[0]).all())


def _highest(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.max()) if len(known) else None


def _median(values: NDArray[np.float64]) -> float | None:
    """Median of the known values, None where there is none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None
