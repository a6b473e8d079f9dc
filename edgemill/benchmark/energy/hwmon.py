"""Hardware monitors: /sys/class/hwmon/hwmon* with energy, power, or voltage and current.

Units as Linux, Documentation/hwmon/sysfs-interface.rst: microjoules, microwatts, millivolts,
milliamperes. Which of several channels of a chip contain each other no file says, so one channel is
taken, except where it is known: the sockets of `amd_energy` contain its cores, and the three channels
of an INA3221 are three supplies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.meter import Counter, CounterMeter, Covers, EnergyMeter, Found, PowerMeter, Unusable
from edgemill.benchmark.energy.sysfs import children, number, refusal, text

NAME = "hwmon"

_FOLDER = "sys/class/hwmon"
_REMEDY = "run as root, or give this user the right to read it"
_COUNTER_UPDATE_S = 0.01
_POWER_UPDATE_S = 0.05
_CPU = ("amd_energy", "fam15h_power")
_GPU = ("amdgpu", "i915", "xe", "nouveau", "radeon")
_CHANNELS = (1, 2, 3)


def find(root: Path = Path("/"), ignore: tuple[str, ...] = ()) -> Found:
    """One meter for every chip that gives energy or power.

    Args:
        root: folder in which `sys` is.
        ignore: names of chips that another reader has.
    """
    meters: list[EnergyMeter] = []
    unusable: list[Unusable] = []
    for folder in children(root / _FOLDER, "hwmon*"):
        chip = text(folder / "name") or folder.name
        # A battery shows its voltage and current here a second time.
        if chip in ignore or (folder / "device" / "type").exists():
            continue
        found = _chip(folder, chip)
        meters.extend(found.meters)
        unusable.extend(found.unusable)
    if not meters and not unusable:
        unusable.append(Unusable(NAME, f"no chip in {root / _FOLDER} gives energy, power, or voltage and current"))
    return Found(tuple(meters), tuple(unusable))


def shunt_channels(folder: Path) -> list[tuple[str, Callable[[], float]]]:
    """Label and power, in watts, of the channels of an INA3221 that are switched on and connected."""
    channels: list[tuple[str, Callable[[], float]]] = []
    for index in _CHANNELS:
        volts, amperes = folder / f"in{index}_input", folder / f"curr{index}_input"
        label = text(folder / f"in{index}_label") or f"channel {index}"
        enabled = text(folder / f"in{index}_enable") != "0"
        if volts.exists() and amperes.exists() and enabled and label != "NC":
            channels.append((label, partial(product, volts, amperes)))
    return channels


def product(volts: Path, amperes: Path) -> float:
    """Watts of a channel, from millivolts and milliamperes.

    Raises:
        ToolchainError: one of them cannot be read.
    """
    return number(volts) * number(amperes) * 1e-6


def _chip(folder: Path, chip: str) -> Found:
    name = f"{NAME} {chip}"
    covers = Covers.CPU if chip in _CPU else Covers.GPU if chip in _GPU else Covers.SYSTEM
    energy = _energy_files(folder)
    power = next((f for f in (folder / "power1_input", folder / "power1_average") if f.exists()), None)
    shunts = shunt_channels(folder) if chip == "ina3221" else _single(folder)
    needed = energy or ([power] if power else []) or _inputs(folder, shunts)
    for path in needed:
        if reason := refusal(path, _REMEDY):
            return Found((), (Unusable(name, reason),))
    source = f"measured:{chip}"
    if energy:
        counters = tuple(Counter(partial(number, path), 1e-6, None, str(path)) for path in energy)
        scope = ", ".join(_label(path) for path in energy)
        return Found((CounterMeter(name, source, scope, covers, _COUNTER_UPDATE_S, counters),), ())
    if power:
        scope = _label(power)
        return Found((PowerMeter(name, source, scope, covers, _POWER_UPDATE_S, partial(_watts, power)),), ())
    if shunts:
        scope = ", ".join(label for label, _ in shunts)
        total = partial(_total, [watts for _, watts in shunts])
        return Found((PowerMeter(name, source, scope, covers, _POWER_UPDATE_S, total),), ())
    return Found((), ())


def _energy_files(folder: Path) -> list[Path]:
    files = children(folder, "energy*_input")
    sockets = [path for path in files if _label(path).startswith("Esocket")]
    return sockets or files[:1]


def _single(folder: Path) -> list[tuple[str, Callable[[], float]]]:
    volts, amperes = folder / "in1_input", folder / "curr1_input"
    if volts.exists() and amperes.exists():
        return [(_label(volts), partial(product, volts, amperes))]
    return []


def _inputs(folder: Path, shunts: list[tuple[str, Callable[[], float]]]) -> list[Path]:
    if not shunts:
        return []
    return [path for path in (folder / "in1_input", folder / "curr1_input") if path.exists()]


def _label(path: Path) -> str:
    return text(path.with_name(f"{path.name.rpartition('_')[0]}_label")) or path.name.rpartition("_")[0]


def _watts(path: Path) -> float:
    return number(path) * 1e-6


def _total(parts: list[Callable[[], float]]) -> float:
    return sum(part() for part in parts)
