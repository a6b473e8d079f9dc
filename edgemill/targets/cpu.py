"""What the CPU of this machine can do, as far as inference runtimes choose their kernels by it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_LINES = ("flags", "Features")

DECIDING = (
    *("avx2", "fma", "f16c", "avx_vnni", "avx_vnni_int8", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimddp", "fphp", "asimdhp", "asimdfhm", "i8mm", "bf16", "sve", "svei8mm", "sve2", "sme"),
)
"""Features on which onnxruntime, XNNPACK and their relatives choose among kernels that round differently."""

_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def architecture(machine: str) -> str:
    """One name for each architecture, from what `platform.machine()` gives on any system."""
    return _ALIASES.get(machine.lower(), machine.lower())


@cache
def cpu_features() -> frozenset[str]:
    """Names that Linux gives for the features of this CPU; empty on systems without /proc/cpuinfo."""
    try:
        return parse_cpuinfo(_CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return frozenset()


def parse_cpuinfo(text: str) -> frozenset[str]:
    """Features of the first processor in the text of /proc/cpuinfo (x86: `flags`, ARM: `Features`)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in _LINES:
            return frozenset(value.split())
    return frozenset()


def deciding(features: frozenset[str]) -> tuple[str, ...]:
    """Those of `DECIDING` that are among `features`, in a fixed order."""
    return tuple(name for name in DECIDING if name in features)
