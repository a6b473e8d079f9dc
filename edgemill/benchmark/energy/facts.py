"""Energy of a model as facts of a step: measured where a meter is, else estimated where power is declared."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemill.benchmark.energy.envelope import estimate_energy
from edgemill.benchmark.energy.find import choose, find_meters
from edgemill.benchmark.energy.measure import Report, measure_energy
from edgemill.benchmark.energy.meter import EnergyMeter
from edgemill.errors import ToolchainError
from edgemill.targets.provenance import provenance
from edgemill.targets.spec import Target


def energy_source(meter: EnergyMeter, target: Target | None) -> str:
    """Label of a meter's figures for a target: the meter's own where this machine is like the target.

    Elsewhere the target's label with the sensor behind it, e.g. `proxy:x86_64-host/rapl`.
    """
    label = provenance(target, platform.machine()) if target else "measured:native"
    return meter.source if label == "measured:native" else f"{label}/{meter.source.partition(':')[2]}"


def energy_facts(
    call: Callable[[], Any],
    target: Target,
    *,
    latency_ms: float,
    threads: int,
    pairs: int = 10,
    window_s: float = 1.0,
    confidence: float = 0.95,
    root: Path = Path("/"),
    report: Report = lambda fraction, message: None,
) -> dict[str, Any]:
    """Measure the energy of a call, or estimate it.

    Args:
        call: one inference.
        target: what the figure is for.
        latency_ms: of one call; only the estimate needs it.
        threads: threads of the call.
        pairs: see `measure_energy`.
        window_s: see `measure_energy`.
        confidence: see `measure_energy`.
        root: folder in which `sys` and `proc` are.
        report: told of progress.

    Returns:
        The fields of `Energy`, those of `EnergyEstimate`, or neither; then, and where a meter failed,
        `energy_missing` says why.
    """
    found = find_meters(root)
    meter = choose(found)
    missing = "; ".join(f"{name}: {reason}" for name, reason in found.unusable)
    if meter is not None:
        try:
            return measure_energy(
                call,
                meter,
                pairs=pairs,
                window_s=window_s,
                confidence=confidence,
                label=energy_source(meter, target),
                report=report,
            ).model_dump()
        except ToolchainError as error:
            missing = f"{meter.name}: {error.what} {error.got or ''}".strip()
        finally:
            meter.close()
    estimate = estimate_energy(target, latency_ms, threads, provenance(target, platform.machine()))
    return {"energy_missing": missing} | (estimate.model_dump() if estimate else {})
