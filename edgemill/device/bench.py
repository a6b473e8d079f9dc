"""Measure a model beside the fp32 baseline on the machine that this runs on: `edgemill device bench`.

The comparison is that of `edgemill.benchmark.latency`, with what a small board has: nothing but numpy, pydantic,
psutil, pyyaml and the runtime. As a program (`python -m edgemill.device.bench FOLDER LIMIT_S`) it does the job in a
folder and tells its progress on standard output, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.benchmark.batches import batch_of, loader, measure_batches
from edgemill.benchmark.comparison import BASELINE, VARIANT, Comparison
from edgemill.benchmark.cores import pinned
from edgemill.benchmark.footprint import ColdStart, Memory, typical_start
from edgemill.benchmark.host import fingerprint
from edgemill.benchmark.interval import METHOD
from edgemill.benchmark.side_by_side import Report, fresh_processes, time_facts
from edgemill.benchmark.slots import exclusive
from edgemill.benchmark.speed import speed_verdict
from edgemill.data.dataset import Dataset, SplitName
from edgemill.device.conditions import conditions
from edgemill.device.job import JOB, OUT, Job, data_of, part_file
from edgemill.errors import EdgemillError, InvariantError
from edgemill.runtimes import open_model, runtime_of
from edgemill.step import InputFile
from edgemill.targets.provenance import provenance
from edgemill.targets.spec import Target

SAMPLES, PREDICTIONS = "samples.npz", "predictions.npy"

_CHUNK = 64
_TELL_S = 0.5


def measure(job: Job, folder: Path, report: Report) -> dict[str, Any]:
    """Do a job.

    Args:
        job: what is asked.
        folder: holds its files, see `edgemill.device.job`; `out/` gets `samples.npz` (see
            `Comparison.samples`) where the models are timed and, where a split is to be answered,
            `predictions.npy`, float32 (N, *output_shape).
        report: told of progress.

    Returns:
        `facts`, those of the step `benchmark.latency` without sizes of files where the models are timed; `host`,
        the fingerprint of this machine; `before` and `after`, its `Conditions`.

    Raises:
        ToolchainError: a file cannot be loaded, or does not take the batch.
        DataError: there are fewer samples than the batch takes.
    """
    out = folder / OUT
    out.mkdir(exist_ok=True)
    files = {VARIANT: part_file(folder, VARIANT, job.variant), BASELINE: part_file(folder, BASELINE, job.baseline)}
    data = data_of(folder)
    with exclusive(report):
        before = conditions()
        facts = _compare(job, files, data, out, report) if job.timed else {}
        after = conditions()
    if job.answer is not None:
        facts |= {"answered": _answer(files[VARIANT], data, job.answer, job.benchmark.threads, out, report)}
    report(1.0, "measured")
    return {
        "facts": facts,
        "host": fingerprint(),
        "before": before.model_dump(mode="json"),
        "after": after.model_dump(mode="json"),
    }


def _compare(job: Job, files: Mapping[str, InputFile], data: Dataset, out: Path, report: Report) -> dict[str, Any]:
    rule = job.benchmark
    x = batch_of(data, rule.batch)
    batch_file = out / "batch.npy"
    np.save(batch_file, x, allow_pickle=False)
    starts: dict[str, list[ColdStart]] = {VARIANT: [], BASELINE: []}
    memories: dict[str, Memory] = {}
    with pinned(rule.threads) as pin:
        children = fresh_processes(files, batch_file, rule.threads, starts, memories, report)
        load = loader(files, x, rule.threads)
        comparison = Comparison(load, rule, pin, report, between=lambda: next(children, None))
        estimate = comparison.run(job.confidence)
        batches, batch_samples = measure_batches(files, data, rule, job.confidence, pin, report)
    batch_file.unlink()
    facts: dict[str, Any] = {}
    for name in (VARIANT, BASELINE):
        prefix = "" if name == VARIANT else "baseline_"
        own = typical_start(starts[name]).model_dump() | memories[name].model_dump()
        facts |= {f"{prefix}{key}": value for key, value in own.items()} | time_facts(
            comparison.times(name), rule.batch, name
        )
    runtime = runtime_of(job.variant.kind)
    facts |= _energy(load()[VARIANT], job.target, facts["latency_p50_ms"], rule.threads, report)
    facts |= comparison.facts() | {
        "ratio": estimate.value,
        "ratio_lower": estimate.lower,
        "ratio_upper": estimate.upper,
        "ratio_confidence": job.confidence,
        "ratio_method": METHOD,
        "speedup": 1 / estimate.value,
        "speed": speed_verdict(*estimate),
        "batches": batches,
        "source": provenance(job.target, platform.machine()),
        "threads": rule.threads,
        "batch": rule.batch,
        "pinned_cores": pin.cores,
        "priority": pin.priority,
        "runtime": runtime.name,
        "runtime_version": runtime.version(),
    }
    cold = {f"{name}_cold_start_ms": np.array([one.cold_start_ms for one in starts[name]]) for name in starts}
    np.savez_compressed(out / SAMPLES, **comparison.samples(), **cold, **batch_samples)  # type: ignore[arg-type]
    return facts


def _energy(call: Callable[[], Any], target: Target, latency_ms: float, threads: int, report: Report) -> dict[str, Any]:
    """What `energy_facts` gives; the estimate alone where its statistics (scipy) are not on the board."""

    def tell(_fraction: float | None, message: str) -> None:
        report(None, message)

    try:
        from edgemill.benchmark.energy.facts import energy_facts
    except ImportError as error:
        from edgemill.benchmark.energy.envelope import estimate_energy

        estimate = estimate_energy(target, latency_ms, threads, provenance(target, platform.machine()))
        missing = f"{error.name} is not installed here: pip install {error.name}"
        return {"energy_missing": missing} | (estimate.model_dump() if estimate else {})
    return energy_facts(call, target, latency_ms=latency_ms, threads=threads, report=tell)


def _answer(
    file: InputFile, data: Dataset, split: SplitName, threads: int, out: Path, report: Report
) -> dict[str, Any]:
    """Answer a whole split, one sample at a time; writes `predictions.npy`."""
    model = open_model(file.path, file.artifact.kind, threads)
    total = data.sizes[str(split)]
    parts = []
    for start in range(0, total, _CHUNK):
        parts.append(np.asarray(model.predict(data.features(split, start, start + _CHUNK)), dtype=np.float32))
        report(min(start + _CHUNK, total) / total, f"{min(start + _CHUNK, total)} of {total} answers")
    answers = np.concatenate(parts)
    np.save(out / PREDICTIONS, answers, allow_pickle=False)
    return {"split": str(split), "samples": len(answers), "non_finite": int((~np.isfinite(answers)).sum())}


def _main(folder: Path, limit_s: int) -> None:
    signal.alarm(limit_s)  # whatever else fails, the kernel ends this process then
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a runtime prints must not end up between the events

    def send(event: dict[str, Any]) -> None:
        answers.write(json.dumps(event, allow_nan=False) + "\n")
        answers.flush()

    told = -_TELL_S

    def report(fraction: float | None, message: str) -> None:
        nonlocal told
        if time.monotonic() - told < _TELL_S:
            return
        told = time.monotonic()
        send({"event": "progress", "fraction": fraction, "message": message})

    try:
        job = Job.model_validate_json((folder / JOB).read_bytes())
        send({"event": "result", "result": measure(job, folder, report)})
    except EdgemillError as error:
        send({"event": "error", "error": error.to_dict()})
    except Exception as error:  # noqa: BLE001 - whatever was raised must reach the client as an event
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}".replace("\n", "; ")[:500]
        fault = InvariantError("The measurement on the board failed in a way that was not foreseen.", got=text)
        send({"event": "error", "error": fault.to_dict()})


if __name__ == "__main__":
    if wrapper := os.environ.get("EDGEMILL_PYTHON"):
        sys.executable = wrapper  # what starts an interpreter here, e.g. a script around it; children take it too
    _main(Path(sys.argv[1]), int(sys.argv[2]))
