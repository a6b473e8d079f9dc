"""What of this machine decides in which arithmetic it can answer."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from functools import cache

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.emulate.places import ARCHITECTURES, read_sysroot
from edgemill.targets.cpu import architecture, cpu_features, deciding

EMULATORS = ("qemu-x86_64", "qemu-aarch64", "qemu-riscv64", "qemu-system-arm")
_VERSION_LIMIT_S = 20


class Host(Frozen):
    """A machine on which Edgemill runs."""

    arch: str = Field(description="architecture, e.g. x86_64 or aarch64")
    features: tuple[str, ...] = Field((), description="of the CPU, those on which kernels depend")
    emulators: dict[str, str] = Field({}, description="version by name of every emulator that is installed")
    sysroots: dict[str, str] = Field({}, description="digest by architecture of every sysroot that can be used")
    unusable: dict[str, str] = Field({}, description="why by architecture a sysroot that is there cannot be used")
    distributions: dict[str, dict[str, str]] = Field(
        {}, description="version by name of the Python distributions in every sysroot that can be used"
    )

    @property
    def identity(self) -> str:
        """Architecture and deciding features; equal on machines that calculate alike."""
        return " ".join((self.arch, *self.features))


def this_host() -> Host:
    """Look at this machine."""
    sysroots, unusable, distributions = {}, {}, {}
    for arch in ARCHITECTURES:
        found = read_sysroot(arch)
        if found is not None and found.stale:
            unusable[arch] = found.stale
        elif found is not None:
            sysroots[arch] = found.digest
            distributions[arch] = {} if found.manifest is None else found.manifest.wheels
    versions = {name: emulator_version(path) for name in EMULATORS if (path := shutil.which(name))}
    return Host(
        arch=architecture(platform.machine()),
        features=deciding(cpu_features()),
        emulators={name: version for name, version in versions.items() if version},
        sysroots=sysroots,
        unusable=unusable,
        distributions=distributions,
    )


@cache
def emulator_version(path: str) -> str | None:
    """Version of an emulator, e.g. 7.2.22; None where the program does not run."""
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_VERSION_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"version (\S+)", told.stdout)
    return found.group(1) if found else None
