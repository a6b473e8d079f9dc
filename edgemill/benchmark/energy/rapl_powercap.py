"""RAPL by the power capping framework: /sys/class/powercap/intel-rapl:* (also of AMD, since Linux 5.11).

Zones form a tree (Linux, Documentation/power/powercap/powercap.rst): a package contains its zones
`core` and `uncore`, but not the memory, `dram`; `psys` contains everything. What is added up here is
packages and memory. `intel-rapl-mmio` shows the same packages a second time.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.meter import Counter, CounterMeter, Covers, Found, absent
from edgemill.benchmark.energy.sysfs import children, number, refusal, text

NAME = "rapl-powercap"

_FOLDER = "sys/class/powercap"
_UPDATE_S = 0.001
_REMEDY = "run as root, or once `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`"


def find(root: Path = Path("/")) -> Found:
    """Packages and memory of this machine as one meter.

    Args:
        root: folder in which `sys` is.
    """
    zones = children(root / _FOLDER, "intel-rapl:*")
    if not zones:
        return absent(NAME, f"{root / _FOLDER} has no zone intel-rapl: no RAPL, a virtual machine, or no driver")
    counted = [zone for zone in zones if _counts(zone)]
    if not counted:
        return absent(NAME, f"{root / _FOLDER} has no zone of a package")
    for zone in counted:
        reason = refusal(zone / "energy_uj", _REMEDY) or refusal(zone / "max_energy_range_uj", _REMEDY)
        if reason:
            return absent(NAME, reason)
    counters = tuple(
        Counter(partial(number, zone / "energy_uj"), 1e-6, number(zone / "max_energy_range_uj"), str(zone))
        for zone in counted
    )
    names = ", ".join(text(zone / "name") or zone.name for zone in counted)
    return Found((CounterMeter(NAME, "measured:rapl", names, Covers.CPU, _UPDATE_S, counters),), ())


def _counts(zone: Path) -> bool:
    name = text(zone / "name") or ""
    return name.startswith("package") or name == "dram"
