"""Which C compiler makes a program; part of its identity in the cache."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache

from edgemill.targets.spec import CrossCompiler

_LIMIT_S = 20
HOST_COMPILER = CrossCompiler(compiler="gcc", packages=("gcc", "libc6-dev"))
"""Makes the program of this machine with which every other is compared."""


def compiler_identity(cross: CrossCompiler | None) -> dict[str, str]:
    """Versions of the target's compiler and the host's, and the host's architecture; empty where none is needed."""
    if cross is None:
        return {}
    return {
        "compiler": _version(cross.compiler),
        "host_compiler": _version(HOST_COMPILER.compiler),
        "host": platform.machine(),
    }


@cache
def _version(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        return "absent"
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return told.stdout.splitlines()[0].strip() if told.stdout else "unknown"
