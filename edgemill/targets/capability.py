"""What this machine lacks to make and measure files for a target."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from typing import Any

from packaging.version import InvalidVersion, Version

from edgemill.compile.c_compiler import HOST_COMPILER
from edgemill.emulate.machine import emulation_lacks, how_executed, target_lacks
from edgemill.lack import APT, PIP, Lack
from edgemill.targets.catalog import load_target, target_names
from edgemill.targets.provenance import difference, provenance
from edgemill.targets.spec import By, CrossCompiler, Target
from edgemill.toolchains import installed

UNPROVEN_RANGE = "the version range is not proven"
PROXY = "answers are not validated in the target's own arithmetic"

_PIPELINE = ("onnx", "tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx")


def blockers(target: Target) -> list[Lack]:
    """What must be there to make files for a target and let them answer, and is not. Nothing is imported."""
    missing = [lack for name in target.toolchains for lack in installed(name).lacks]
    if not target.toolchains and (runtime := _runtime_lack(target)) is not None:
        missing.append(runtime)
    if absent := ", ".join(name for name in _PIPELINE if _installed(name) is None):
        what = f"{absent} not installed"
        missing.append(Lack(name=absent, what=what, getter=PIP, arguments=("'edgemill[pipeline]'",)))
    compilers = () if target.cross is None else (target.cross, HOST_COMPILER)
    missing += [lack for item in dict.fromkeys(compilers) if (lack := compiler_lack(item)) is not None]
    if target.execution.by is By.PROGRAM and target.emulation is not None and difference(target, platform.machine()):
        missing += emulation_lacks(target.emulation, sysroot=False)
    if target.execution.by is By.RUNTIME and target.is_foreign_code:
        missing += target_lacks(target)  # the host cannot stand in
    return missing


def capability(target: Target) -> list[Lack]:
    """What is missing; empty where everything is there.

    These are the `blockers`, and with an `effect`, what would prove more: the oldest runtime of the target's range,
    and where this CPU calculates otherwise than the target's, the emulator and its sysroot, without which the host
    answers as a proxy.
    """
    missing = blockers(target)
    weaker = []
    if target.oldest is not None:
        weaker += [lack.model_copy(update={"effect": UNPROVEN_RANGE}) for lack in installed(target.oldest).lacks]
    emulated = target.emulation is not None and target.execution.by is not By.PROGRAM
    if emulated and difference(target, platform.machine()):
        lacks = [lack for lack in target_lacks(target) if lack not in missing]
        weaker += [lack.model_copy(update={"effect": PROXY}) for lack in lacks]
    return missing + weaker


def compiler_lack(compiler: CrossCompiler) -> Lack | None:
    """A C compiler that is not installed; None where it is."""
    name = compiler.compiler
    if shutil.which(name) is not None:
        return None
    return Lack(name=name, what=f"{name} is not installed", getter=APT, arguments=compiler.packages)


def _runtime_lack(target: Target) -> Lack | None:
    runtime = target.runtime
    if target.execution.by is not By.RUNTIME:
        return None
    version = _installed(runtime.name)
    wanted = f"{runtime.name}>={runtime.minimum},<{runtime.below}"
    if version is not None and _within(version, runtime.minimum, runtime.below):
        return None
    what = f"{runtime.name} is not installed" if version is None else f"{runtime.name} {version} is not what it runs"
    return Lack(name=runtime.name, what=what, getter=PIP, arguments=(f"'{wanted}'",))


def describe_targets() -> list[dict[str, Any]]:
    """The catalog as plain values: every field of the target and its `digest`, and `lacks`.

    `latency_source` and `accuracy_source` say where times and answers come from on this machine.
    """
    return [
        target.model_dump(mode="json")
        | {
            "digest": target.digest,
            "latency_source": provenance(target, platform.machine()),
            "accuracy_source": how_executed(target).source,
            "lacks": [lack.as_json() for lack in capability(target)],
        }
        for target in map(load_target, target_names())
    ]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _within(installed: str, minimum: str, below: str) -> bool:
    try:
        return Version(minimum) <= Version(installed) < Version(below)
    except InvalidVersion:
        return False
