"""RAPL by perf events: /sys/bus/event_source/devices/power.

The kernel counts in fixed units whose size the files `*.scale` and `*.unit` give, 64 bits wide, so that
nothing wraps (Linux, arch/x86/events/rapl.c). One event a domain is opened on the first CPU of every
package, which the file `cpumask` lists. `energy-cores`, `energy-gpu` and `energy-psys` overlap with
`energy-pkg` and are left out.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edgemill.benchmark.energy.meter import Counter, CounterMeter, Covers, Found, absent
from edgemill.benchmark.energy.sysfs import indices, text
from edgemill.errors import ToolchainError

NAME = "rapl-perf"

OpenEvent = Callable[[int, int, int, int], int]
"""(type, config, pid, cpu) -> file descriptor."""

_FOLDER = "sys/bus/event_source/devices/power"
_EVENTS = ("energy-pkg", "energy-ram")
_UPDATE_S = 0.001
_SYSCALL = {"x86_64": 298, "aarch64": 241}
_CLOEXEC = 8
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
"""struct perf_event_attr of the first version, 64 bytes: type, size, config, then zeros."""


def open_event(kind: int, config: int, pid: int, cpu: int) -> int:
    """Open a counting perf event (perf_event_open(2)).

    Args:
        kind: type of the event, from the file `type` of its device.
        config: which event of the device.
        pid: process, 0 for this one, -1 for all.
        cpu: CPU, -1 for any.

    Returns:
        A file descriptor; reading 8 bytes gives the count.

    Raises:
        OSError: the kernel refused.
    """
    syscall = _SYSCALL.get(platform.machine())
    if syscall is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(
        _ATTRIBUTES.pack(kind, _ATTRIBUTES.size, config, 0, 0, 0, 0, 0, 0, 0), _ATTRIBUTES.size
    )
    arguments = [ctypes.c_long(value) for value in (pid, cpu, -1)]
    descriptor: int = libc.syscall(ctypes.c_long(syscall), attributes, *arguments, ctypes.c_ulong(_CLOEXEC))
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def read_event(descriptor: int) -> int:
    """Count of an open event.

    Raises:
        ToolchainError: it cannot be read.
    """
    try:
        return int.from_bytes(os.read(descriptor, 8), "little")
    except OSError as error:
        raise ToolchainError("A perf event cannot be read.", where=NAME, got=error.strerror) from error


def find(root: Path = Path("/"), opener: OpenEvent = open_event) -> Found:
    """Packages and memory of this machine as one meter.

    Args:
        root: folder in which `sys` is.
        opener: opens an event.
    """
    folder = root / _FOLDER
    kind, mask = text(folder / "type"), text(folder / "cpumask")
    if kind is None or mask is None:
        return absent(NAME, f"{folder} is not there: no RAPL, a virtual machine, or no driver")
    descriptors: list[int] = []
    counters: list[Counter] = []
    names: list[str] = []
    try:
        for name in _EVENTS:
            event = text(folder / "events" / name)
            if event is None:
                continue
            scale = _joules(folder / "events" / name)
            for cpu in indices(mask):
                descriptor = opener(int(kind), _config(event), -1, cpu)
                descriptors.append(descriptor)
                counters.append(Counter(partial(read_event, descriptor), scale, 1 << 64, f"{NAME}, {name}, CPU {cpu}"))
            names.append(name)
    except (OSError, ValueError) as error:
        _close(descriptors)
        return absent(NAME, _reason(error, root))
    if not counters:
        return absent(NAME, f"{folder} has none of the events {', '.join(_EVENTS)}")
    meter = CounterMeter(
        NAME, "measured:rapl", ", ".join(names), Covers.CPU, _UPDATE_S, tuple(counters), partial(_close, descriptors)
    )
    return Found((meter,), ())


def _config(event: str) -> int:
    """`event=0x02` is 2."""
    key, _, value = event.partition("=")
    if key != "event":
        raise ValueError(f"cannot understand the event {event!r}")
    return int(value, 0)


def _joules(event: Path) -> float:
    unit, scale = text(event.with_name(f"{event.name}.unit")), text(event.with_name(f"{event.name}.scale"))
    if unit != "Joules" or scale is None:
        raise ValueError(f"the unit of {event.name} is {unit!r} and its scale {scale!r}")
    return float(scale)


def _reason(error: OSError | ValueError, root: Path) -> str:
    if isinstance(error, PermissionError):
        level = text(root / "proc/sys/kernel/perf_event_paranoid")
        return (
            f"the kernel refuses this user events of the whole machine (perf_event_paranoid is {level or 'unknown'}): "
            f"run as root, with CAP_PERFMON, or set /proc/sys/kernel/perf_event_paranoid to 0"
        )
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
