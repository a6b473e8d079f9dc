"""Fingerprint of the machine that measures: the same across reboots, another where times would not compare."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from edgemill.artifact import canonical_json, digest_text
from edgemill.step import tool_versions

_RUNTIMES = ("onnxruntime", "ai-edge-litert", "numpy")
_INT8_FLAGS = (
    *("avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512_fp16", "amx_int8"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "sve"),
)
_CPUINFO = Path("/proc/cpuinfo")
_MEMORY_STEP = 1 << 28


@cache
def fingerprint() -> dict[str, Any]:
    """What decides how fast a model runs here.

    Returns:
        `arch`, `cpu` (model), `flags` (those that matter for 8-bit and half-precision kernels), `cores`
        (that this process may use), `memory_bytes` (rounded to 256 MiB), `kernel`, `python`, and
        `versions` of the runtimes.
    """
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "arch": platform.machine(),
        "cpu": _cpu_name(info),
        "flags": [flag for flag in _INT8_FLAGS if flag in flags],
        "cores": len(usable_cores()),
        "memory_bytes": round(psutil.virtual_memory().total / _MEMORY_STEP) * _MEMORY_STEP,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": tool_versions(_RUNTIMES),
    }


def fingerprint_digest() -> str:
    """SHA-256 of `fingerprint`; part of the cache key of every measurement."""
    return digest_text(canonical_json(fingerprint()))


def usable_cores() -> list[int]:
    """Numbers of the cores on which this process may run, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpuinfo() -> dict[str, str]:
    """Fields of the first processor in /proc/cpuinfo; empty where there is none."""
    if not _CPUINFO.exists():
        return {}
    first = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_name(info: dict[str, str]) -> str:
    if "model name" in info:
        keys = ("vendor_id", "model name", "cpu family", "model", "stepping")
    else:
        keys = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision")
    return " ".join(info[key] for key in keys if key in info) or platform.processor() or "unknown"
