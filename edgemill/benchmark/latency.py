"""Step body: latency, memory and size of a variant beside the fp32 baseline, in one interleaved run.

Blocks of the two alternate, and which of them goes first changes from round to round, so that drift,
other load and clock changes meet both alike. What is compared is the ratio within a round.
"""

from __future__ import annotations

import gc
import gzip
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from edgemill.benchmark import BenchmarkSettings
from edgemill.benchmark.footprint import measure_footprint
from edgemill.benchmark.host import fingerprint, usable_cores
from edgemill.benchmark.interval import bootstrap_median, round_ratios
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError
from edgemill.recipe import Benchmark
from edgemill.runtimes import open_model, runtime_of
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.provenance import provenance

Call = Callable[[], Any]

COMPRESSION = "gzip -9"

_UNTIMED = 2
_BUSY_S = 0.3
_WARM_BLOCKS = 3
_WARM_SPREAD = 0.05
_WARM_LIMIT_S = 5.0


def run(settings: BenchmarkSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Measure one variant.

    Inputs:
        variant: onnx or tflite.
        baseline: the checkpoint as fp32 onnx.
        data: dataset; the batch that is timed is taken from its validation split.

    Outputs:
        samples: .npz with `variant_ns` and `baseline_ns`, int64 (rounds, runs), in order of time.

    Facts, times in milliseconds of one call with the recipe's batch: `latency_p50_ms`, `latency_p95_ms`,
    `latency_p99_ms`, `throughput_per_s` (samples), `load_ms`, `first_inference_ms`, `peak_rss_bytes`,
    `size_bytes`, `compressed_bytes`, and the same of the baseline with the prefix `baseline_` (without
    `latency_`); `ratio` (variant / baseline, below 1 is faster) with `ratio_lower`, `ratio_upper`,
    `ratio_confidence`, and `speedup` = 1 / ratio; `source` (design rule 7); `threads`, `batch`,
    `pinned_cores`, `warm_up_blocks`, `compression`, `involuntary_switches` (how often the operating
    system took the core away), `host`, `runtime` and `runtime_version`.

    Raises:
        ToolchainError: a file cannot be loaded.
        DataError: there are fewer validation samples than the batch takes.
    """
    rule = settings.benchmark
    x = _batch(Dataset(inputs["data"].path), rule.batch)
    batch_file = context.out / "batch.npy"
    np.save(batch_file, x, allow_pickle=False)
    facts: dict[str, Any] = {}
    with pinned(rule.threads) as cores:
        calls = {}
        for name in ("variant", "baseline"):
            file = inputs[name]
            prefix = _prefix(name)
            context.report(None, f"memory and start of the {name}")
            footprint = measure_footprint(file.path, file.artifact.kind, batch_file, rule.threads)
            facts |= {f"{prefix}{key}": value for key, value in footprint.model_dump().items()}
            facts |= {f"{prefix}{key}": value for key, value in _sizes(file).items()}
            calls[name] = open_model(file.path, file.artifact.kind, rule.threads).prepare(x)
        warm_up_blocks = _warm_up(calls, rule)
        switches = _switches()
        times = interleave(calls["variant"], calls["baseline"], rule, context.report)
        switches = _switches() - switches
    batch_file.unlink()
    for name, samples in times.items():
        facts |= _times(samples, rule.batch, name)
    ratios = round_ratios(*(times[name].astype(np.float64) for name in ("variant", "baseline")))
    ratio, lower, upper = bootstrap_median(ratios, settings.confidence, settings.resamples, context.seed)
    runtime = runtime_of(inputs["variant"].artifact.kind)
    facts |= {
        "ratio": ratio,
        "ratio_lower": lower,
        "ratio_upper": upper,
        "ratio_confidence": settings.confidence,
        "speedup": 1 / ratio,
        "source": provenance(settings.target, platform.machine()),
        "threads": rule.threads,
        "batch": rule.batch,
        "pinned_cores": cores,
        "warm_up_blocks": warm_up_blocks,
        "compression": COMPRESSION,
        "involuntary_switches": switches,
        "host": fingerprint(),
        "runtime": runtime.name,
        "runtime_version": runtime.version(),
    }
    path = context.out / "samples.npz"
    np.savez_compressed(path, variant_ns=times["variant"], baseline_ns=times["baseline"])
    return Outputs(files={"samples": OutputFile(path, kind="samples")}, facts=facts)


def interleave(
    variant: Call, baseline: Call, rule: Benchmark, report: Callable[[float | None, str], None]
) -> dict[str, NDArray[np.int64]]:
    """Time both in alternating blocks.

    Returns:
        `variant` and `baseline`: nanoseconds of each call, int64 (rounds, runs).
    """
    calls = {"variant": variant, "baseline": baseline}
    times = {name: np.empty((rule.rounds, rule.runs_per_round), np.int64) for name in calls}
    order = list(calls)
    for index in range(rule.rounds):
        for name in order:
            times[name][index] = time_block(calls[name], rule.runs_per_round)
        order.reverse()
        report((index + 1) / rule.rounds, f"round {index + 1} of {rule.rounds}")
    return times


def time_block(call: Call, runs: int) -> NDArray[np.int64]:
    """Nanoseconds of consecutive calls, int64 (runs,).

    Two calls before them are not timed: they bring the model back into the caches that the other
    model has used, as in a process that serves one model.
    """
    for _ in range(_UNTIMED):
        call()
    stamps = [0] * (runs + 1)
    clock = time.perf_counter_ns
    collecting = gc.isenabled()
    gc.disable()
    try:
        stamps[0] = clock()
        for index in range(1, runs + 1):
            call()
            stamps[index] = clock()
    finally:
        if collecting:
            gc.enable()
    moments = np.asarray(stamps, dtype=np.int64)
    return moments[1:] - moments[:-1]


@contextmanager
def pinned(threads: int) -> Iterator[list[int] | None]:
    """Keep this process, and those it starts, on as many cores as it has threads: the least busy ones.

    Yields:
        The cores, or None where the system cannot pin or has fewer cores than threads.
    """
    before = usable_cores()
    if not hasattr(os, "sched_setaffinity") or threads > len(before):
        yield None
        return
    busy = psutil.cpu_percent(interval=_BUSY_S, percpu=True)
    cores = sorted(sorted(before, key=lambda core: (busy[core] if core < len(busy) else 0.0, -core))[:threads])
    os.sched_setaffinity(0, cores)
    try:
        yield cores
    finally:
        os.sched_setaffinity(0, before)


def _warm_up(calls: Mapping[str, Call], rule: Benchmark) -> int:
    """Run both until the medians of the last blocks agree, or a limit of time; returns the blocks taken."""
    taken = 0
    for call in calls.values():
        deadline = time.monotonic() + _WARM_LIMIT_S
        medians: list[float] = []
        while time.monotonic() < deadline:
            medians.append(float(np.median(time_block(call, rule.runs_per_round))))
            recent = medians[-_WARM_BLOCKS:]
            if len(recent) == _WARM_BLOCKS and max(recent) <= (1 + _WARM_SPREAD) * min(recent):
                break
        taken += len(medians)
    return taken


def _batch(data: Dataset, size: int) -> NDArray[np.float32]:
    x = data.features(SplitName.VALIDATION, 0, size)
    if len(x) < size:
        raise DataError(
            "There are fewer validation samples than one batch of the benchmark takes.",
            where="benchmark.batch",
            expected=f"at most {len(x)}",
            got=size,
        )
    return x


def _times(samples: NDArray[np.int64], batch: int, name: str) -> dict[str, float]:
    milliseconds = samples.astype(np.float64).ravel() / 1e6
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 95, 99)))
    prefix = "latency_" if name == "variant" else "baseline_"
    throughput = batch * 1e3 / float(milliseconds.mean())
    return {
        f"{prefix}p50_ms": p50,
        f"{prefix}p95_ms": p95,
        f"{prefix}p99_ms": p99,
        f"{_prefix(name)}throughput_per_s": throughput,
    }


def _sizes(file: InputFile) -> dict[str, int]:
    content = file.path.read_bytes()
    return {"size_bytes": len(content), "compressed_bytes": len(gzip.compress(content, compresslevel=9, mtime=0))}


def _prefix(name: str) -> str:
    return "" if name == "variant" else "baseline_"


def _switches() -> int:
    import resource  # not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
