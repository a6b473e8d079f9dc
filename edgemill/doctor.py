"""What is installed on this machine, and what each target lacks."""

from __future__ import annotations

import platform
import shutil
from typing import Any

from edgemill.benchmark.energy.find import find_meters
from edgemill.emulate.host import EMULATORS, Host, this_host
from edgemill.emulate.machine import emulator_lack, how_executed
from edgemill.lack import Lack, commands, state, total_mb
from edgemill.step import tool_versions
from edgemill.targets import Target, load_target, target_names
from edgemill.targets.capability import capability, compiler_lack
from edgemill.toolchains import Installed, installed, toolchain_names

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
    `energy_meters` what each measures, `energy_meters_unusable` why others cannot be read, `targets`
    by name the arithmetic in which its files are validated here (`answers`) and what it lacks,
    `missing` the commands that get everything that any target lacks, `missing_mb` its toolchains' size.
    """
    targets = [load_target(name) for name in target_names()]
    lacks = {target.name: capability(target) for target in targets}
    everything = [lack for found in lacks.values() for lack in found]
    chains = {name: installed(name) for name in toolchain_names()}
    compilers = {target.cross.compiler: target.cross for target in targets if target.cross is not None}
    host = this_host()
    found = find_meters()
    for meter in found.meters:
        meter.close()
    return {
        "machine": {"arch": platform.machine(), "system": platform.platform(), "python": platform.python_version()},
        "packages": tool_versions(PACKAGES),
        "cpu": list(host.features),
        "emulators": {name: host.emulators.get(name) or _absent(emulator_lack(name)) for name in EMULATORS},
        "compilers": {
            name: _absent(lack) if (lack := compiler_lack(compiler)) is not None else shutil.which(name)
            for name, compiler in compilers.items()
        },
        "toolchains": {name: _toolchain(chain) for name, chain in chains.items()},
        "sysroots": host.sysroots | host.unusable,
        "energy_meters": {meter.name: meter.scope for meter in found.meters},
        "energy_meters_unusable": {item.name: item.reason for item in found.unusable},
        "targets": {target.name: _target(target, host, lacks[target.name]) for target in targets},
        "missing": commands(everything),
        "missing_mb": total_mb(everything),
    }


def _target(target: Target, host: Host, lacks: list[Lack]) -> dict[str, Any]:
    answers = how_executed(target, host).source
    return {"answers": answers, "state": state(lacks), "lacks": [lack.as_json() for lack in lacks]}


def _absent(lack: Lack) -> str:
    return f"absent: {lack.command}"


def _toolchain(found: Installed) -> dict[str, Any]:
    lack = next(iter(found.lacks), None)
    return {
        "title": found.toolchain.title,
        "size_mb": found.toolchain.size_mb,
        "licence": found.toolchain.licence,
        "versions": found.toolchain.versions(found.toolchain.provides),
        "folder": str(found.folder),
        "state": "installed" if lack is None else str(lack).removeprefix(f"{lack.name} "),
    }
