"""In which state the processor of this machine is: governor, clocks, temperature, load."""

from __future__ import annotations

import math
import os
from pathlib import Path

from pydantic import Field, FiniteFloat

from edgemill.artifact import Frozen
from edgemill.benchmark.energy.sysfs import children, text
from edgemill.benchmark.heat import find_sensors

_CPUS = "sys/devices/system/cpu"


class Conditions(Frozen):
    """What decides how fast a processor is at a moment; None where the kernel does not tell."""

    governors: tuple[str, ...] = Field(description="of the clock, every one that a core has; e.g. performance")
    temperature_c: FiniteFloat | None = Field(description="of the hottest sensor of the processor")
    mhz: FiniteFloat | None = Field(description="mean clock of the cores")
    mhz_follows: bool = Field(description="whether that is the clock of now; a constant in many virtual machines")
    mhz_min: FiniteFloat | None = Field(description="lowest clock that the governor may choose")
    mhz_max: FiniteFloat | None = Field(description="highest")
    load: FiniteFloat | None = Field(description="processes that want to run, mean of the last minute")
    missing: dict[str, str] = Field(description="what cannot be read, and why")


def conditions(root: Path = Path("/")) -> Conditions:
    """Look now.

    Args:
        root: folder in which `sys` and `proc` are.
    """
    sensors = find_sensors(root)
    folders = [folder / "cpufreq" for folder in children(root / _CPUS, "cpu[0-9]*")]
    governors = {name for folder in folders if (name := text(folder / "scaling_governor"))}
    lowest = [_mhz(folder / "scaling_min_freq") for folder in folders]
    highest = [_mhz(folder / "scaling_max_freq") for folder in folders]
    missing = dict(sensors.missing)
    if not governors:
        missing["governor"] = f"no cpufreq in {root / _CPUS}"
    return Conditions(
        governors=tuple(sorted(governors)),
        temperature_c=_known(sensors.temperature_c()),
        mhz=_known(sensors.mhz()),
        mhz_follows=sensors.clocks_follow,
        mhz_min=min((value for value in lowest if value is not None), default=None),
        mhz_max=max((value for value in highest if value is not None), default=None),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        missing=missing,
    )


def _mhz(path: Path) -> float | None:
    try:
        return _known(float(text(path) or "nan") / 1000)
    except ValueError:
        return None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
