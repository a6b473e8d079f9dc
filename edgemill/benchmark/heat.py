"""Temperature and clock of the processor, from what the kernel shows.

Thermal zones and hardware monitors give millidegrees Celsius, cpufreq gives kilohertz (Linux,
Documentation/driver-api/thermal/sysfs-api.rst, hwmon/sysfs-interface.rst, admin-guide/pm/cpufreq.rst).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.sysfs import children, text

_ZONES = "sys/class/thermal"
_MONITORS = "sys/class/hwmon"
_CPUFREQ = "sys/devices/system/cpu"
_CPUINFO = "proc/cpuinfo"
_CPU_ZONE = re.compile(r"x86_pkg_temp|cpu|soc|pkg|cluster|big|little|core", re.IGNORECASE)
_CPU_MONITOR = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal")
_COLDEST_C, _HOTTEST_C = -40.0, 150.0
"""Sensors that are switched off or broken give values outside."""


@dataclass(frozen=True)
class Sensor:
    """One thing that can be read again and again.

    Attributes:
        name: where it is from, e.g. `thermal_zone0 x86_pkg_temp`.
        read: its value now, NaN where it gives none.
    """

    name: str
    read: Callable[[], float]


@dataclass(frozen=True)
class Sensors:
    """What tells heat on a machine.

    Attributes:
        temperatures: of the processor, in degrees Celsius.
        clocks: of the cores that are measured, in megahertz.
        clocks_follow: whether the clocks are those of now; the kernel's `cpu MHz` in /proc/cpuinfo is a
            constant in many virtual machines and counts only where it moves.
        missing: what cannot be read, with the reason.
    """

    temperatures: tuple[Sensor, ...] = ()
    clocks: tuple[Sensor, ...] = ()
    clocks_follow: bool = False
    missing: dict[str, str] = field(default_factory=dict)

    def temperature_c(self) -> float:
        """The hottest sensor, NaN where none gives a value."""
        values = [value for value in (sensor.read() for sensor in self.temperatures) if not math.isnan(value)]
        return max(values, default=math.nan)

    def mhz(self) -> float:
        """Mean over the cores, NaN where none gives a value."""
        values = [value for value in (sensor.read() for sensor in self.clocks) if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan


def find_sensors(root: Path = Path("/"), cores: Sequence[int] | None = None) -> Sensors:
    """Search this machine.

    Args:
        root: folder in which `sys` and `proc` are.
        cores: whose clocks count; all by default.
    """
    missing: dict[str, str] = {}
    temperatures = _temperatures(root)
    if not temperatures:
        missing["temperature"] = f"no thermal zone in {root / _ZONES} and no temp*_input in {root / _MONITORS}"
    clocks, follow = _cpufreq(root, cores), True
    if not clocks:
        clocks, follow = _cpuinfo(root, cores), False
    if not clocks:
        missing["frequency"] = f"neither cpufreq in {root / _CPUFREQ} nor `cpu MHz` in {root / _CPUINFO}"
    return Sensors(temperatures, clocks, follow, missing)


def _temperatures(root: Path) -> tuple[Sensor, ...]:
    """Sensors of the processor; where none is known by its name, all there are."""
    zones = [
        (_CPU_ZONE.search(kind) is not None, Sensor(f"{zone.name} {kind}", partial(_degrees, zone / "temp")))
        for zone in children(root / _ZONES, "thermal_zone*")
        for kind in [text(zone / "type") or "unknown"]
    ]
    monitors = []
    for folder in children(root / _MONITORS, "hwmon*"):
        chip = text(folder / "name") or folder.name
        for path in children(folder, "temp*_input"):
            label = text(path.with_name(path.name.replace("_input", "_label"))) or path.name.removesuffix("_input")
            monitors.append((chip in _CPU_MONITOR, Sensor(f"{chip} {label}", partial(_degrees, path))))
    working = [(cpu, sensor) for cpu, sensor in [*zones, *monitors] if not math.isnan(sensor.read())]
    of_cpu = tuple(sensor for cpu, sensor in working if cpu)
    return of_cpu or tuple(sensor for _, sensor in working)


def _cpufreq(root: Path, cores: Sequence[int] | None) -> tuple[Sensor, ...]:
    sensors = []
    for folder in children(root / _CPUFREQ, "cpu[0-9]*"):
        path = folder / "cpufreq" / "scaling_cur_freq"
        wanted = cores is None or int(folder.name.removeprefix("cpu")) in cores
        if wanted and not math.isnan(_kilohertz(path)):
            sensors.append(Sensor(f"{folder.name} scaling_cur_freq", partial(_kilohertz, path)))
    return tuple(sensors)


def _cpuinfo(root: Path, cores: Sequence[int] | None) -> tuple[Sensor, ...]:
    path = root / _CPUINFO
    wanted = sorted(core for core in _clock_table(path) if cores is None or core in cores)
    return tuple(Sensor(f"cpu{core} cpuinfo", partial(_table_entry, path, core)) for core in wanted)


def _clock_table(path: Path) -> dict[int, float]:
    table: dict[int, float] = {}
    core = -1
    for line in (text(path) or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        try:
            if key == "processor":
                core = int(value)
            elif key == "cpu MHz":
                table[core] = float(value)
        except ValueError:
            continue
    return table


def _table_entry(path: Path, core: int) -> float:
    return _clock_table(path).get(core, math.nan)


def _degrees(path: Path) -> float:
    value = _float(path) / 1000
    return value if _COLDEST_C < value < _HOTTEST_C else math.nan


def _kilohertz(path: Path) -> float:
    value = _float(path) / 1000
    return value if value > 0 else math.nan


def _float(path: Path) -> float:
    try:
        return float(text(path) or "nan")
    except ValueError:
        return math.nan
