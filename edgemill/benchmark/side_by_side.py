"""What a measurement on this host and one on a board have in common: fresh processes, and times in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark.comparison import BASELINE, VARIANT
from edgemill.benchmark.footprint import ColdStart, Memory, cold_start, memory
from edgemill.step import InputFile

COLD_STARTS = 3
"""Fresh processes of each model whose start is timed; with one for memory each, there are as many as sittings."""

Report = Callable[[float | None, str], None]


def fresh_processes(
    files: Mapping[str, InputFile],
    x: Path,
    threads: int,
    starts: dict[str, list[ColdStart]],
    memories: dict[str, Memory],
    report: Report,
) -> Iterator[None]:
    """Run one process each time it is asked, in the order ABBA; fills `starts` and `memories`.

    Args:
        files: by `VARIANT` and `BASELINE`.
        x: .npy with one batch, float32.
        threads: threads of the runtime.
        starts: gets `COLD_STARTS` a model.
        memories: gets one a model.
        report: told the progress.
    """
    names = [VARIANT, BASELINE]
    for index in range(COLD_STARTS + 1):
        for name in names:
            file = files[name]
            if index < COLD_STARTS:
                report(None, f"start of the {name}")
                starts[name].append(cold_start(file.path, file.artifact.kind, x, threads))
            else:
                report(None, f"memory of the {name}")
                memories[name] = memory(file.path, file.artifact.kind, x, threads)
            yield
        names.reverse()


def time_facts(samples: NDArray[np.int64], batch: int, name: str) -> dict[str, float]:
    """Percentiles in milliseconds and throughput of a model's calls.

    Args:
        samples: nanoseconds, int64 (rounds, runs).
        batch: samples a call.
        name: `VARIANT`, whose facts are called latency_..., or `BASELINE`.
    """
    milliseconds = samples.astype(np.float64).ravel() / 1e6
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 95, 99)))
    prefix, own = ("latency_", "") if name == VARIANT else ("baseline_", "baseline_")
    return {
        f"{prefix}p50_ms": p50,
        f"{prefix}p95_ms": p95,
        f"{prefix}p99_ms": p99,
        f"{own}throughput_per_s": batch * 1e3 / float(milliseconds.mean()),
    }
