"""The battery: /sys/class/power_supply/*, in micro units (Linux, Documentation/ABI/testing/sysfs-class-power).

Only while it discharges does a battery tell what the device draws. The sign of a current differs
between drivers, therefore the state decides and the size of the number counts. Fuel gauges are slow:
seconds pass between new values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.meter import Counter, CounterMeter, Covers, EnergyMeter, Found, PowerMeter, absent
from edgemill.benchmark.energy.sysfs import children, number, text
from edgemill.errors import ToolchainError

NAME = "battery"

_FOLDER = "sys/class/power_supply"
_POWER_UPDATE_S = 1.0
_ENERGY_UPDATE_S = 30.0
_JOULES_PER_MICROWATT_HOUR = 3.6e-3
_SCOPE = "the whole device, from its battery"
_SOURCE = "measured:battery"


def find(root: Path = Path("/")) -> Found:
    """The device's own battery as a meter, while it discharges.

    Args:
        root: folder in which `sys` is.
    """
    batteries = [supply for supply in children(root / _FOLDER, "*") if _is_battery(supply)]
    if not batteries:
        return absent(NAME, f"{root / _FOLDER} has no battery of this device")
    discharging = [battery for battery in batteries if text(battery / "status") == "Discharging"]
    if not discharging:
        states = ", ".join(f"{battery.name} is {text(battery / 'status') or 'unknown'}" for battery in batteries)
        return absent(NAME, f"{states}: only a discharging battery tells what the device draws; unplug the charger")
    try:
        return Found((_meter(discharging),), ())
    except ToolchainError as error:
        return absent(NAME, f"{error.where}: {error.got}")


def _is_battery(supply: Path) -> bool:
    """A battery of this device, not of a mouse or a headset."""
    return text(supply / "type") == "Battery" and text(supply / "scope") != "Device"


def _meter(batteries: list[Path]) -> EnergyMeter:
    if all(_has_power(battery) for battery in batteries):
        watts = partial(_sum, [partial(_watts, battery) for battery in batteries])
        watts()
        return PowerMeter(NAME, _SOURCE, _SCOPE, Covers.SYSTEM, _POWER_UPDATE_S, watts)
    counters = tuple(
        Counter(partial(_used, battery, number(battery / "energy_now")), _JOULES_PER_MICROWATT_HOUR, None, str(battery))
        for battery in batteries
    )
    return CounterMeter(NAME, _SOURCE, _SCOPE, Covers.SYSTEM, _ENERGY_UPDATE_S, counters)


def _has_power(battery: Path) -> bool:
    return (battery / "power_now").exists() or (
        (battery / "current_now").exists() and (battery / "voltage_now").exists()
    )


def _watts(battery: Path) -> float:
    _check(battery)
    if (battery / "power_now").exists():
        return abs(number(battery / "power_now")) * 1e-6
    return abs(number(battery / "current_now")) * 1e-6 * number(battery / "voltage_now") * 1e-6


def _used(battery: Path, full: int) -> int:
    _check(battery)
    return full - number(battery / "energy_now")


def _check(battery: Path) -> None:
    status = text(battery / "status")
    if status != "Discharging":
        raise ToolchainError(
            "The battery stopped discharging during the measurement.",
            where=str(battery / "status"),
            expected="Discharging",
            got=status or "nothing",
            remedy="unplug the charger and measure again",
        )


def _sum(parts: list[Callable[[], float]]) -> float:
    return sum(part() for part in parts)
