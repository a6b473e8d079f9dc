"""What is installed on this machine, and what each target lacks."""

from __future__ import annotations

import platform
import shutil
from typing import Any

from edgemill.benchmark.energy.find import find_meters
from edgemill.emulate.host import EMULATORS, this_host
from edgemill.emulate.machine import how_executed
from edgemill.step import tool_versions
from edgemill.targets import load_target, target_names
from edgemill.targets.capability import capability
from edgemill.toolchains import installed, toolchain_names

PACKAGES = (
    "edgemill",
    "numpy",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "tensorflow",
    "tf-keras",
    "keras",
    "tensorflow-model-optimization",
    "tf2onnx",
    "prefect",
    "fastapi",
    "mlflow",
)


def examine() -> dict[str, Any]:
    """Versions of what Edgemill stands on (`absent` where missing), and what each target lacks.

    `cpu` are the features on which kernels depend, `sysroots` digests or why they cannot be used,
    `answers` by target the arithmetic in which its files are validated here, `energy_meters` what
    each measures, `energy_meters_unusable` why others cannot be read.
    """
    host = this_host()
    found = find_meters()
    for meter in found.meters:
        meter.close()
    return {
        "machine": {"arch": platform.machine(), "system": platform.platform(), "python": platform.python_version()},
        "packages": tool_versions(PACKAGES),
        "cpu": list(host.features),
        "emulators": {name: host.emulators.get(name, "absent") for name in EMULATORS},
        "compilers": {
            target.cross.compiler: shutil.which(target.cross.compiler)
            or f"absent: apt-get install {' '.join(target.cross.packages)}"
            for target in map(load_target, target_names())
            if target.cross is not None
        },
        "toolchains": {name: _toolchain(name) for name in toolchain_names()},
        "sysroots": host.sysroots | host.unusable,
        "answers": {name: how_executed(load_target(name), host).source for name in target_names()},
        "energy_meters": {meter.name: meter.scope for meter in found.meters},
        "energy_meters_unusable": {item.name: item.reason for item in found.unusable},
        "targets": {name: capability(load_target(name)) for name in target_names()},
    }


def _toolchain(name: str) -> dict[str, Any]:
    found = installed(name)
    return {
        "title": found.toolchain.title,
        "size_mb": found.toolchain.size_mb,
        "licence": found.toolchain.licence,
        "versions": found.toolchain.versions(found.toolchain.provides),
        "folder": str(found.folder),
        "state": found.lacks or "installed",
    }
