"""Energy without a meter: from the target's declared power, always marked as an estimate."""

from __future__ import annotations

from edgemill.artifact import Frozen
from edgemill.targets.spec import Target

SOURCE = "estimated:power-envelope"


class EnergyEstimate(Frozen):
    """A figure that nobody measured; it never stands in a column of measured ones.

    Attributes:
        energy_estimate_mj: millijoules of one call.
        energy_estimate_source: `estimated:power-envelope`, and the label of the latency where it was not
            taken on the target.
        energy_estimate_basis: where the power figures are from.
    """

    energy_estimate_mj: float
    energy_estimate_source: str
    energy_estimate_basis: str


def estimate_energy(target: Target, latency_ms: float, threads: int, latency_source: str) -> EnergyEstimate | None:
    """Latency times the declared power above idle, for the share of cores that the model keeps busy.

    Power above idle is taken to grow in proportion to the busy cores. One busy core draws more than its
    share (it clocks higher, and wakes what all cores share), so the estimate for one thread is on the low side.

    Args:
        target: with or without a power envelope.
        latency_ms: of one call, in milliseconds.
        threads: threads of that call.
        latency_source: label of the latency (`edgemill.targets.provenance`).

    Returns:
        None where the target declares no power, or the latency says nothing of it.
    """
    power = target.power
    if power is None or latency_source.startswith("unlike:"):
        return None
    busy = min(threads, power.active_cores) / power.active_cores
    foreign = "" if latency_source.startswith("measured:") else f", latency {latency_source}"
    return EnergyEstimate(
        energy_estimate_mj=latency_ms * (power.active_w - power.idle_w) * busy,
        energy_estimate_source=f"{SOURCE}{foreign}",
        energy_estimate_basis=power.source,
    )
