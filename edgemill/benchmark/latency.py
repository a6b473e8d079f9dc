"""Step body: latency, memory and size of a variant beside the fp32 baseline, in one interleaved run.

What is compared is the ratio within a round (`comparison.py`), in a run as long as it must be
(`run_length.py`), with an interval that expects other load to last (`interval.py`). The processes
that show cold start and memory run between the sittings, which spreads these in time, so that load
can come and go.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgemill.benchmark import BenchmarkSettings
from edgemill.benchmark.batches import batch_of, loader, measure_batches
from edgemill.benchmark.comparison import BASELINE, VARIANT, Comparison
from edgemill.benchmark.cores import pinned
from edgemill.benchmark.energy.facts import energy_facts
from edgemill.benchmark.footprint import ColdStart, Memory, typical_start
from edgemill.benchmark.host import fingerprint
from edgemill.benchmark.interval import METHOD
from edgemill.benchmark.side_by_side import fresh_processes, time_facts
from edgemill.benchmark.sizes import COMPRESSION, TRANSFER_COMPRESSION, sizes
from edgemill.benchmark.speed import speed_verdict
from edgemill.data.dataset import Dataset
from edgemill.runtimes import runtime_of
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.provenance import provenance


def run(settings: BenchmarkSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Measure one variant.

    Inputs:
        variant: onnx or tflite.
        baseline: the checkpoint as fp32 onnx.
        data: dataset; the batch that is timed is taken from its validation split.

    Outputs:
        samples: .npz with all that was measured, see `Comparison.samples`; besides
            `variant_cold_start_ms` and `baseline_cold_start_ms`, float64 (processes,), and the times
            of further batch sizes.

    Facts, times in milliseconds of one call with the recipe's batch: `latency_p50_ms`, `latency_p95_ms`,
    `latency_p99_ms`, `throughput_per_s` (samples), `cold_start_ms` (from starting a process to its first
    answer), `load_ms`, `first_inference_ms`, `peak_rss_bytes` (less the process without the model),
    `arena_bytes` and `arena_source` (working memory as the runtime tells it, or None and why not),
    `size_bytes`, `compressed_bytes` (`compression`), `transfer_bytes` (`transfer_compression`), and the
    same of the baseline with the prefix `baseline_` (without `latency_`); `ratio` (variant / baseline,
    below 1 is faster) with `ratio_lower`, `ratio_upper`, `ratio_confidence`, `ratio_method`, `speedup`
    = 1 / ratio and `speed` (faster, slower, no different); `stopped` (precise, time budget) and the
    further facts of `Comparison.facts`; `batches` (see `measure_batches`); energy per call, see
    `energy_facts` (outside of the pinned part: meters sample in a thread); `source` (design rule 7);
    `threads`, `batch`, `pinned_cores` (where the run ended), `priority` (nice value), `host`, `runtime`,
    `runtime_version`.

    Raises:
        ToolchainError: a file cannot be loaded, or does not take the recipe's batch.
        DataError: there are fewer validation samples than the batch takes.
    """
    rule = settings.benchmark
    data = Dataset(inputs["data"].path)
    x = batch_of(data, rule.batch)
    batch_file = context.out / "batch.npy"
    np.save(batch_file, x, allow_pickle=False)
    starts: dict[str, list[ColdStart]] = {VARIANT: [], BASELINE: []}
    memories: dict[str, Memory] = {}
    with pinned(rule.threads) as pin:
        children = fresh_processes(inputs, batch_file, rule.threads, starts, memories, context.report)
        load = loader(inputs, x, rule.threads)
        comparison = Comparison(load, rule, pin, context.report, between=lambda: next(children, None))
        estimate = comparison.run(settings.confidence)
        batches, batch_samples = measure_batches(inputs, data, rule, settings.confidence, pin, context.report)
    batch_file.unlink()
    facts: dict[str, Any] = {}
    for name in (VARIANT, BASELINE):
        prefix = "" if name == VARIANT else "baseline_"
        own = typical_start(starts[name]).model_dump() | memories[name].model_dump() | sizes(inputs[name].path)
        facts |= {f"{prefix}{key}": value for key, value in own.items()}
        facts |= time_facts(comparison.times(name), rule.batch, name)
    facts |= energy_facts(
        load()[VARIANT],
        settings.target,
        latency_ms=facts["latency_p50_ms"],
        threads=rule.threads,
        report=lambda fraction, message: context.report(None, message),
    )
    context.report(1.0, "measured")
    runtime = runtime_of(inputs[VARIANT].artifact.kind)
    facts |= comparison.facts() | {
        "ratio": estimate.value,
        "ratio_lower": estimate.lower,
        "ratio_upper": estimate.upper,
        "ratio_confidence": settings.confidence,
        "ratio_method": METHOD,
        "speedup": 1 / estimate.value,
        "speed": speed_verdict(*estimate),
        "batches": batches,
        "source": provenance(settings.target, platform.machine()),
        "threads": rule.threads,
        "batch": rule.batch,
        "pinned_cores": pin.cores,
        "priority": pin.priority,
        "compression": COMPRESSION,
        "transfer_compression": TRANSFER_COMPRESSION,
        "host": fingerprint(),
        "runtime": runtime.name,
        "runtime_version": runtime.version(),
    }
    path = context.out / "samples.npz"
    cold_samples = {f"{name}_cold_start_ms": np.array([one.cold_start_ms for one in starts[name]]) for name in starts}
    np.savez_compressed(path, **comparison.samples(), **cold_samples, **batch_samples)  # type: ignore[arg-type]
    return Outputs(files={"samples": OutputFile(path, kind="samples")}, facts=facts)
