"""NVIDIA cards by NVML (nvidia-ml-py): the counter of energy since Volta, else power.

Jetson modules have no NVML power; see the reader of their INA3221.
"""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

from edgemill.benchmark.energy.meter import (
    Counter,
    CounterMeter,
    Covers,
    EnergyMeter,
    Found,
    PowerMeter,
    Unusable,
    absent,
)
from edgemill.errors import ToolchainError

NAME = "nvml"

_ENERGY_UPDATE_S = 0.1
_POWER_UPDATE_S = 0.1


def find(root: Path = Path("/"), library: Any = None) -> Found:
    """One meter for every card.

    Args:
        root: unless it is `/`, only a given `library` is asked.
        library: the module `pynvml`, or what has its functions; imported by default.
    """
    if library is None:
        if root != Path("/"):
            return absent(NAME, "NVML is asked on the running system only")
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return absent(NAME, "nvidia-ml-py is not installed: pip install nvidia-ml-py")
    try:
        library.nvmlInit()
        count = library.nvmlDeviceGetCount()
    except library.NVMLError as error:
        return absent(NAME, f"NVML does not start: {error}")
    meters: list[EnergyMeter] = []
    unusable: list[Unusable] = []
    for index in range(count):
        try:
            meters.append(_card(library, index))
        except library.NVMLError as error:
            unusable.append(Unusable(f"{NAME} {index}", f"the card tells neither energy nor power: {error}"))
    if not count:
        unusable.append(Unusable(NAME, "NVML sees no card"))
    return Found(tuple(meters), tuple(unusable))


def _card(library: Any, index: int) -> EnergyMeter:
    handle = library.nvmlDeviceGetHandleByIndex(index)
    title = library.nvmlDeviceGetName(handle)
    title = title.decode() if isinstance(title, bytes) else title
    name, scope = f"{NAME} {index}", f"{title}, the whole card"
    try:
        library.nvmlDeviceGetTotalEnergyConsumption(handle)
    except library.NVMLError:
        watts = partial(_watts, library, handle, name)
        library.nvmlDeviceGetPowerUsage(handle)
        return PowerMeter(name, "measured:nvml", scope, Covers.GPU, _POWER_UPDATE_S, watts)
    counter = Counter(partial(_millijoules, library, handle, name), 1e-3, None, name)
    return CounterMeter(name, "measured:nvml", scope, Covers.GPU, _ENERGY_UPDATE_S, (counter,))


def _watts(library: Any, handle: Any, name: str) -> float:
    try:
        return float(library.nvmlDeviceGetPowerUsage(handle)) * 1e-3
    except library.NVMLError as error:
        raise ToolchainError("The card no longer tells its power.", where=name, got=str(error)) from error


def _millijoules(library: Any, handle: Any, name: str) -> int:
    try:
        return int(library.nvmlDeviceGetTotalEnergyConsumption(handle))
    except library.NVMLError as error:
        raise ToolchainError("The card no longer tells its energy.", where=name, got=str(error)) from error
