"""Memory and start of a model, in a process of its own.

`python -m edgemill.benchmark.footprint KIND PATH THREADS INPUT` measures one process.

The process imports the runtime first and takes its resident size then; what the model adds up to its
peak is the model's. It prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from edgemill.artifact import Frozen
from edgemill.errors import EdgemillError, ToolchainError, error_from_dict
from edgemill.runtimes import runtime_of

INFERENCES = 50

_TIME_LIMIT_S = 600.0
_CLEAR_PEAK = "5"
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Footprint(Frozen):
    """What one model costs a fresh process.

    Attributes:
        peak_rss_bytes: highest resident size while loading and running, less that of the process
            with the runtime imported.
        load_ms: from the file to a loaded model.
        first_inference_ms: the first call, in which runtimes allocate and pack weights.
    """

    peak_rss_bytes: int
    load_ms: float
    first_inference_ms: float


def measure_footprint(path: Path, kind: str, x: Path, threads: int, repeats: int = 3) -> Footprint:
    """Medians over fresh processes.

    Args:
        path: the model file.
        kind: onnx or tflite.
        x: .npy with one batch, float32.
        threads: threads of the runtime.
        repeats: number of processes.

    Raises:
        ToolchainError: a process failed.
    """
    found = [_one(path, kind, x, threads) for _ in range(repeats)]
    return Footprint(
        peak_rss_bytes=int(statistics.median(item.peak_rss_bytes for item in found)),
        load_ms=statistics.median(item.load_ms for item in found),
        first_inference_ms=statistics.median(item.first_inference_ms for item in found),
    )


def _one(path: Path, kind: str, x: Path, threads: int) -> Footprint:
    package_root = str(Path(__file__).parents[2])
    search = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "edgemill.benchmark.footprint", kind, str(path), str(threads), str(x)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            check=False,
            env=os.environ | {"PYTHONPATH": search},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            "The process that measures a model's memory did not end.",
            where=str(path),
            expected=f"at most {_TIME_LIMIT_S:.0f} s",
        ) from error
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ToolchainError(
            "The process that measures a model's memory died.",
            where=str(path),
            got=f"exit status {done.returncode}: {' '.join(done.stderr.split())[-300:]}",
        )
    answer: dict[str, Any] = json.loads(lines[-1])
    if "what" in answer:
        raise error_from_dict(answer)
    return Footprint.model_validate(answer)


def observe(path: Path, kind: str, x: Path, threads: int) -> Footprint:
    """Measure in this process, which must be fresh."""
    runtime = runtime_of(kind)
    batch = np.load(x, allow_pickle=False)
    before = psutil.Process().memory_info().rss
    _forget_peak()
    start = time.perf_counter_ns()
    model = runtime.load(path, threads)
    loaded = time.perf_counter_ns()
    call = model.prepare(batch)
    prepared = time.perf_counter_ns()
    call()
    answered = time.perf_counter_ns()
    for _ in range(INFERENCES - 1):
        call()
    return Footprint(
        peak_rss_bytes=max(_peak() - before, 0),
        load_ms=(loaded - start) / 1e6,
        first_inference_ms=(answered - prepared) / 1e6,
    )


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def _main() -> None:
    kind, path, threads, x = sys.argv[1:]
    try:
        answer = observe(Path(path), kind, Path(x), int(threads)).model_dump()
    except EdgemillError as error:
        answer = error.to_dict()
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main()
