"""In which arithmetic the answers of a target's files are calculated on this machine.

`measured:native`
    this CPU calculates as the target's does.
`emulated:qemu-aarch64`
    every sample was answered by a CPU of the target's class in qemu-user.
`probed:qemu-aarch64`
    the host answered, after it and the emulated CPU had given the same answers to the first samples.
`simulated:tflite-micro`
    a reference implementation or a simulator answered, see `Execution`.
`proxy:x86_64-host`
    the host answered, because the emulator or its sysroot is not there.
`unexecuted`
    nothing here can run the file.
"""

from __future__ import annotations

import platform
from enum import StrEnum

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.emulate.host import Host, this_host
from edgemill.lack import APT, SYSROOT, Lack, told
from edgemill.targets.cpu import architecture
from edgemill.targets.provenance import NATIVE, difference
from edgemill.targets.spec import By, Emulation, Target
from edgemill.toolchains import load_toolchain

UNEXECUTED = "unexecuted"

EXACT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni"})
"""Features of x86 CPUs that add products of 8-bit integers in 32 bits."""


class Kernels(StrEnum):
    """Which kernels the runtime uses."""

    DEFAULT = "default"
    """Those that it chooses on a device."""
    EXACT = "exact"
    """onnxruntime's option session.x64quantprecision: on x86 without VNNI, uint8 x int8 products are calculated
    as uint8 x uint8, which never saturates: the answers of every CPU with exact 8-bit products."""


class Machine(Frozen):
    """What answers: this host or an emulated CPU. Part of the identity of predictions."""

    source: str = Field(description="provenance of the answers")
    identity: str = Field(description="CPU and emulator, so that answers of different arithmetic are told apart")
    emulation: Emulation | None = Field(None, description="None: the host itself")
    toolchain: str | None = Field(None, description="environment with what answers; None: Edgemill's own")
    kernels: Kernels = Kernels.DEFAULT
    reason: str = Field("", description="why it is not the target's own hardware; empty where it is")

    @property
    def is_targets_own(self) -> bool:
        """Whether the target's arithmetic answers, on its hardware, in an emulator or a simulator."""
        return self.source == NATIVE or self.emulation is not None or self.source.startswith("simulated:")


def how_executed(target: Target, host: Host | None = None) -> Machine:
    """What answers for a target: this host if it calculates alike, else an emulated CPU, else the host as a proxy.

    Args:
        target: the device class.
        host: what is here; None: look.
    """
    host = host or this_host()
    execution, why = target.execution, difference(target, host.arch, frozenset(host.features))
    if execution.by in (By.REFERENCE, By.SIMULATOR):
        source = f"simulated:{execution.name}"
        return Machine(source=source, identity=source, toolchain=execution.toolchain, reason=execution.note)
    if execution.by is By.NOTHING:
        return Machine(source=UNEXECUTED, identity=host.identity, reason=execution.note or "nothing here can run it")
    if not why:
        return Machine(source=NATIVE, identity=host.identity, toolchain=execution.toolchain)
    emulation, sysroot = target.emulation, execution.by is not By.PROGRAM
    if emulation is None:
        lack = f"no emulator has the CPU of {target.name}"
    elif lacks := target_lacks(target, host):
        lack = told(lacks)
    else:
        return _emulated(emulation, host, sysroot, why)
    return Machine(
        source=f"proxy:{architecture(host.arch)}-host",
        identity=host.identity,
        toolchain=execution.toolchain,
        kernels=exact_kernels(host),
        reason=f"{why}; {lack}",
    )


def _emulated(emulation: Emulation, host: Host, sysroot: bool, why: str) -> Machine:
    identity = _emulated_identity(emulation, host, sysroot)
    if emulation.probe is None:
        return Machine(source=f"emulated:{emulation.emulator}", identity=identity, emulation=emulation, reason=why)
    twin = (
        f"it and {emulation.emulator} gave the same answers to the first {emulation.probe} samples of a split, "
        "and the same source compiled for this machine answered the others"
    )
    return Machine(
        source=f"probed:{emulation.emulator}",
        identity=f"{host.identity}; {identity}, {emulation.probe} samples",
        emulation=emulation,
        reason=f"{why}; {twin}",
    )


def on_this_host(host: Host | None = None) -> Machine:
    """The host as it is, e.g. for the checkpoint's own answers."""
    return Machine(source=NATIVE, identity=(host or this_host()).identity)


def reference(host: Host | None = None) -> Machine:
    """The host with exact 8-bit products: what a target is compared with, and what answers for other machines."""
    host = host or this_host()
    return on_this_host(host).model_copy(update={"kernels": exact_kernels(host)})


def exact_kernels(host: Host) -> Kernels:
    """The kernels with which a host multiplies 8-bit integers exactly."""
    saturates = architecture(host.arch) == "x86_64" and not EXACT_PRODUCTS.intersection(host.features)
    return Kernels.EXACT if saturates else Kernels.DEFAULT


def screened_on(machine: Machine, close: bool, samples: int, host: Host | None = None) -> Machine:
    """What answers the screen on validation data, which selects but promises nothing.

    Where host and target gave the same answers on the samples of a divergence probe, the host answers for
    it, in exact kernels; where they parted, the emulated CPU answers everything. The gate on test data
    always takes `machine` itself.

    Args:
        machine: from `how_executed`.
        close: whether the probe found equal bits, or floats that differ by rounding only.
        samples: of the probe.
        host: what is here; None: look.
    """
    host = host or this_host()
    if machine.emulation is None or not close:
        return machine
    return Machine(
        source=f"probed:{machine.emulation.emulator}",
        identity=f"{host.identity}; {machine.identity}",
        kernels=exact_kernels(host),
        reason=f"{machine.reason}; on {samples} samples {machine.emulation.emulator} gave the host's answers",
    )


def emulation_lacks(emulation: Emulation, host: Host | None = None, *, sysroot: bool = True) -> list[Lack]:
    """What is missing here to emulate; empty where everything is there.

    Args:
        emulation: which CPU.
        host: what is here; None: look.
        sysroot: whether libraries of the CPU are needed; programs that are linked statically need none.
    """
    host = host or this_host()
    lacks = []
    if emulation.emulator not in host.emulators:
        lacks.append(emulator_lack(emulation.emulator))
    if sysroot and emulation.arch != architecture(host.arch) and emulation.arch not in host.sysroots:
        why = host.unusable.get(emulation.arch, f"there is no sysroot of {emulation.arch}")
        lacks.append(_sysroot_lack(emulation.arch, why))
    return lacks


def emulator_lack(name: str) -> Lack:
    """An emulator that is not installed."""
    package = "qemu-system-arm" if name == "qemu-system-arm" else "qemu-user"
    system = "" if platform.system() == "Linux" else ", and runs on Linux only"
    return Lack(name=name, what=f"{name} is not installed{system}", getter=APT, arguments=(package,))


def target_lacks(target: Target, host: Host | None = None) -> list[Lack]:
    """What is missing here to emulate a target, as `emulation_lacks`, and its own runtime in the sysroot.

    Args:
        target: the device class; without an emulation nothing is missing.
        host: what is here; None: look.
    """
    host, emulation, execution = host or this_host(), target.emulation, target.execution
    if emulation is None:
        return []
    lacks = emulation_lacks(emulation, host, sysroot=execution.by is not By.PROGRAM)
    if execution.toolchain is None or execution.by is not By.RUNTIME or emulation.arch not in host.sysroots:
        return lacks
    wanted = load_toolchain(execution.toolchain).versions((target.runtime.name,)).get(target.runtime.name, "")
    if host.distributions.get(emulation.arch, {}).get(target.runtime.name) == wanted:
        return lacks
    why = f"the sysroot of {emulation.arch} is without {target.runtime.name} {wanted}"
    return [*lacks, _sysroot_lack(emulation.arch, why)]


def _sysroot_lack(arch: str, why: str) -> Lack:
    return Lack(name=f"sysroot {arch}", what=why, getter=SYSROOT, arguments=(arch,))


def _emulated_identity(emulation: Emulation, host: Host, sysroot: bool) -> str:
    used = sysroot and emulation.arch != architecture(host.arch)
    digest = host.sysroots.get(emulation.arch, "")[:16] if used else ""
    parts = [f"{emulation.emulator} {host.emulators[emulation.emulator]}", emulation.cpu]
    return ", ".join([*parts, f"sysroot {digest}"] if digest else parts)
