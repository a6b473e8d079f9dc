"""What this machine lacks to make and measure files for a target."""

from __future__ import annotations

import platform
import shutil
from importlib import metadata
from typing import Any

from packaging.version import InvalidVersion, Version

from edgemill.compile.c_compiler import HOST_COMPILER
from edgemill.emulate.machine import emulation_lacks, how_executed, target_lacks
from edgemill.targets.catalog import load_target, target_names
from edgemill.targets.provenance import difference, provenance
from edgemill.targets.spec import By, Target
from edgemill.toolchains import installed

_PIPELINE = ("onnx", "tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx")


def blockers(target: Target) -> list[str]:
    """What must be there to make files for a target and let them answer, and is not: one sentence each, with
    the command that gets it. Nothing is imported."""
    missing = [lacks for name in target.toolchains if (lacks := installed(name).lacks)]
    if not target.toolchains:
        missing += _runtime_lacks(target)
    absent = [name for name in _PIPELINE if _installed(name) is None]
    if absent:
        missing.append(f"{', '.join(absent)} not installed: pip install 'edgemill[pipeline]'")
    compilers = () if target.cross is None else (target.cross, HOST_COMPILER)
    missing += [
        f"{item.compiler} is not installed: apt-get install {' '.join(item.packages)}"
        for item in dict.fromkeys(compilers)
        if shutil.which(item.compiler) is None
    ]
    if target.execution.by is By.PROGRAM and target.emulation is not None and difference(target, platform.machine()):
        missing += emulation_lacks(target.emulation, sysroot=False)
    if target.execution.by is By.RUNTIME and target.is_foreign_code:
        missing += target_lacks(target)  # the host cannot stand in
    return missing


def capability(target: Target) -> list[str]:
    """What is missing, one sentence each; empty where everything is there.

    These are the `blockers`, and where this CPU calculates otherwise than the target's, the emulator and its
    sysroot, without which the host answers as a proxy.
    """
    missing = blockers(target)
    if target.oldest is not None and (lacks := installed(target.oldest).lacks):
        missing.append(f"the version range is not proven: {lacks}")
    emulated = target.emulation is not None and target.execution.by is not By.PROGRAM
    if emulated and target.emulation is not None and difference(target, platform.machine()):
        missing += [
            f"answers are not validated in the target's own arithmetic: {lack}"
            for lack in target_lacks(target)
            if lack not in missing
        ]
    return missing


def _runtime_lacks(target: Target) -> list[str]:
    runtime = target.runtime
    if target.execution.by is not By.RUNTIME:
        return []
    installed_version = _installed(runtime.name)
    wanted = f"{runtime.name}>={runtime.minimum},<{runtime.below}"
    if installed_version is None:
        return [f"{runtime.name} is not installed: pip install '{wanted}'"]
    if not _within(installed_version, runtime.minimum, runtime.below):
        return [f"{runtime.name} {installed_version} is not what the target runs: pip install '{wanted}'"]
    return []


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
            "lacks": capability(target),
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
