"""What this machine lacks to make and measure files for a target."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

from packaging.version import InvalidVersion, Version

from edgemill.emulate.machine import emulation_lacks, how_executed
from edgemill.targets.provenance import difference, provenance
from edgemill.targets.spec import Target, load_target, target_names

_PIPELINE = ("onnx", "tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx")


def capability(target: Target) -> list[str]:
    """What is missing, one sentence each; empty where everything is there.

    Checked: the target's runtime and its version range, the packages of the pipeline, and where this CPU
    calculates otherwise than the target's, the emulator and its sysroot. Nothing is imported.
    """
    missing = []
    runtime = target.runtime
    installed = _installed(runtime.name)
    wanted = f"{runtime.name}>={runtime.minimum},<{runtime.below}"
    if installed is None:
        missing.append(f"{runtime.name} is not installed: pip install '{wanted}'")
    elif not _within(installed, runtime.minimum, runtime.below):
        missing.append(f"{runtime.name} {installed} is not what the target runs: pip install '{wanted}'")
    absent = [name for name in _PIPELINE if _installed(name) is None]
    if absent:
        missing.append(f"{', '.join(absent)} not installed: pip install 'edgemill[pipeline]'")
    if target.emulation is not None and difference(target, platform.machine()):
        missing += [
            f"answers are not validated in the target's own arithmetic: {lack}"
            for lack in emulation_lacks(target.emulation)
        ]
    return missing


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
