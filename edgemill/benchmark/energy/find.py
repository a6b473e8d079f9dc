"""All meters of this machine, the best first, and why the others cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemill.benchmark.energy import battery, hwmon, jetson, nvml, rapl_perf, rapl_powercap, raspberry_pi
from edgemill.benchmark.energy.meter import Covers, EnergyMeter, Found


def find_meters(root: Path = Path("/"), nvml_library: Any = None) -> Found:
    """Search this machine.

    Args:
        root: folder in which `sys` and `proc` are; another than `/` is a copy or an imitation of them.
        nvml_library: what has the functions of the module `pynvml`; that module by default.

    Returns:
        Meters that can be read now, the best first: those that resolve milliseconds and see little but
        the processor, then whole devices, then accelerators. Close those that were read.
    """
    on_jetson = jetson.find(root)
    found = (
        rapl_powercap.find(root),
        rapl_perf.find(root),
        on_jetson,
        raspberry_pi.find(root),
        hwmon.find(root, ignore=("ina3221",) if on_jetson.meters else ()),
        battery.find(root),
        nvml.find(root, nvml_library),
    )
    meters = sorted((meter for part in found for meter in part.meters), key=lambda meter: meter.covers is Covers.GPU)
    return Found(tuple(meters), tuple(reason for part in found for reason in part.unusable))


def choose(found: Found) -> EnergyMeter | None:
    """The best meter for a model that runs on the CPU; closes the others."""
    chosen = next((meter for meter in found.meters if meter.covers is not Covers.GPU), None)
    for meter in found.meters:
        if meter is not chosen:
            meter.close()
    return chosen
