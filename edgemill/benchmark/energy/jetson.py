"""The INA3221 of NVIDIA Jetson modules, under the names of their rails.

JetPack 4 shows it as an IIO device of the driver `ina3221x`, later ones as a hardware monitor of the
driver `ina3221`. Modules with a rail for the whole input (`VDD_IN`, `POM_5V_IN`) are metered there; its
other rails are inside it. AGX modules have none, so their rails are added up. On AGX Orin
`VDDQ_VDD2_1V8AO` is fed by `VIN_SYS_5V0` (both read the same 5 V) and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.hwmon import shunt_channels
from edgemill.benchmark.energy.meter import Covers, Found, PowerMeter, absent
from edgemill.benchmark.energy.sysfs import children, number, text
from edgemill.errors import ToolchainError

NAME = "jetson-ina3221"

_OLD = "sys/bus/i2c/drivers/ina3221x"
_NEW = "sys/bus/i2c/drivers/ina3221"
_WHOLE_INPUT = ("VDD_IN", "POM_5V_IN")
_INSIDE_OTHERS = ("VDDQ_VDD2_1V8AO",)
_TEGRA = "proc/device-tree/compatible"
_UPDATE_S = 0.05

Rail = tuple[str, Callable[[], float]]


def find(root: Path = Path("/")) -> Found:
    """The module's input as one meter.

    Args:
        root: folder in which `sys` and `proc` are.
    """
    compatible = text(root / _TEGRA) or ""
    if "tegra" not in compatible:
        return absent(NAME, "this is no Jetson module")
    rails = _old_rails(root) or _new_rails(root)
    if not rails:
        return absent(NAME, f"neither {root / _OLD} nor {root / _NEW} has a device with rails")
    chosen = [rail for rail in rails if rail[0] in _WHOLE_INPUT][:1]
    chosen = chosen or [rail for rail in rails if rail[0] not in _INSIDE_OTHERS]
    watts = partial(_sum, [read for _, read in chosen])
    try:
        watts()
    except ToolchainError as error:
        return absent(NAME, f"{error.where}: {error.got}")
    scope = " + ".join(name for name, _ in chosen)
    return Found((PowerMeter(NAME, "measured:ina3221", scope, Covers.SYSTEM, _UPDATE_S, watts),), ())


def _old_rails(root: Path) -> list[Rail]:
    rails: list[Rail] = []
    for device in children(root / _OLD, "*/iio:device*"):
        for label in children(device, "rail_name_*"):
            name, power = text(label), device / f"in_power{label.name.rpartition('_')[2]}_input"
            if name and name != "NC" and power.exists():
                rails.append((name, partial(_milliwatts, power)))
    return rails


def _new_rails(root: Path) -> list[Rail]:
    return [rail for device in children(root / _NEW, "*/hwmon/hwmon*") for rail in shunt_channels(device)]


def _milliwatts(path: Path) -> float:
    return number(path) * 1e-3


def _sum(rails: list[Callable[[], float]]) -> float:
    return sum(read() for read in rails)
