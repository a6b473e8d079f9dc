"""One start of a model, in a process that imports what a device imports.

Run as a file, so that nothing else of the package is imported:
`python -P start.py cold KIND PATH THREADS INPUT SPAWNED_NS` tells how long the first answer took, with
SPAWNED_NS the parent's monotonic clock when it started the process;
`python -P start.py memory KIND PATH THREADS INPUT` tells how much memory the model takes.
They are two processes, because reading memory properly takes time, and a line of JSON each; the memory
that the runtime itself tells is one more line, last, because that goes below its Python interface.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from edgemill.errors import EdgemillError
from edgemill.runtimes import runtime_of

_INFERENCES = 50
_MADV_POPULATE_READ = 22
_CLEAR_PEAK = "5"
_MAPS = Path("/proc/self/maps")
_STATM = Path("/proc/self/statm")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def cold(kind: str, path: Path, threads: int, x: Path, spawned_ns: int) -> dict[str, object]:
    """Load a model and answer one batch in this process, which must be fresh.

    Returns:
        `cold_start_ms`: from spawning this process to the first answer. `load_ms`: from the file to
        a loaded model. `first_inference_ms`: the first call, in which runtimes allocate and pack
        weights.
    """
    runtime = runtime_of(kind)
    batch = np.load(x, allow_pickle=False)
    start = time.monotonic_ns()
    model = runtime.load(path, threads)
    loaded = time.monotonic_ns()
    call = model.prepare(batch)
    prepared = time.monotonic_ns()
    call()
    answered = time.monotonic_ns()
    return {
        "cold_start_ms": (answered - spawned_ns) / 1e6,
        "load_ms": (loaded - start) / 1e6,
        "first_inference_ms": (answered - prepared) / 1e6,
    }


def memory(kind: str, path: Path, threads: int, x: Path) -> dict[str, object]:
    """Peak of the resident size that a model adds to this process, which must be fresh.

    Subtracted is the process with the runtime imported and the whole of its libraries in memory:
    else the pages of code that a model is the first to use, some 10 MB, would count as the model's.

    Returns:
        `peak_rss_bytes`, while loading and in 50 inferences.
    """
    runtime = runtime_of(kind)
    batch = np.load(x, allow_pickle=False)
    _populate_libraries()
    before = _resident()
    _forget_peak()
    call = runtime.load(path, threads).prepare(batch)
    for _ in range(_INFERENCES):
        call()
    return {"peak_rss_bytes": max(_peak() - before, 0)}


def _populate_libraries() -> None:
    """Fault in all pages of the shared libraries (Linux 5.14 and later; see madvise(2))."""
    try:
        lines = _MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in lines:
        addresses, permissions, *_ = line.split()
        if ".so" in line and permissions.startswith("r"):
            first, last = (int(address, 16) for address in addresses.split("-"))
            madvise(first, last - first, _MADV_POPULATE_READ)


def _resident() -> int:
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import psutil

        return int(psutil.Process().memory_info().rss)


def _forget_peak() -> None:
    """Make the kernel count the peak from now on (Linux; see proc(5), clear_refs)."""
    try:
        _CLEAR_REFS.write_text(_CLEAR_PEAK, encoding="ascii")
    except OSError:
        return  # the peak then is that since the start, which the import of the runtime rarely exceeds


def _peak() -> int:
    try:
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _tell(answer: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _main() -> None:
    what, kind, path, threads, x, *spawned_ns = sys.argv[1:]
    try:
        if what == "cold":
            _tell(cold(kind, Path(path), int(threads), Path(x), int(spawned_ns[0])))
            return
        _tell(memory(kind, Path(path), int(threads), Path(x)))
    except EdgemillError as error:
        _tell(error.to_dict())
        return
    from edgemill.benchmark.arena import arena_of

    try:
        size, source = arena_of(kind, Path(path), int(threads), np.load(x, allow_pickle=False))
    except (EdgemillError, OSError) as error:
        size, source = None, " ".join(str(error).split())[:300]
    _tell({"arena_bytes": size, "arena_source": source})


if __name__ == "__main__":
    _main()
