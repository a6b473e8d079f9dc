"""Step body: why a variant is as slow as it is, operator by operator, from its runtime's own profile."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.benchmark import CausesSettings, causes_litert, causes_onnx
from edgemill.benchmark.blocks import time_block
from edgemill.benchmark.causes_cause import MINOR_SHARE, Case, Cause, listed, number, percent
from edgemill.benchmark.causes_graph import GraphView
from edgemill.benchmark.causes_model import same_operators
from edgemill.benchmark.cores import pinned
from edgemill.benchmark.host import fingerprint
from edgemill.benchmark.profile_litert import profile_litert, tensor_types
from edgemill.benchmark.profile_nodes import OperatorTime, by_operator
from edgemill.benchmark.profile_onnxruntime import empty_model, profile_onnx
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError
from edgemill.runtimes import open_model, runtime_of
from edgemill.step import InputFile, Outputs, StepContext

NOT_FASTER = 0.95
"""Share of the baseline's time from which a variant counts as not faster."""
_SHOWN = 12
_UNEXPLAINED = 3
_ROUNDS = 9
_RUNS = 20
_BUDGET_S = 2.0


class Explanation(Frozen):
    """Where the time of a model goes, and why."""

    runtime: str = Field(description="name and version")
    method: str = Field(description="how the times of the operators were taken")
    per_inference_us: float = Field(description="median of a call without the profiler, with Python's share of it")
    baseline_per_inference_us: float | None
    ratio: float | None = Field(description="median over rounds of variant / baseline; below 1 is faster")
    causes: tuple[Cause, ...] = Field(description="by the time they cost; empty if there is nothing to explain")
    operators: tuple[OperatorTime, ...]
    baseline_operators: tuple[OperatorTime, ...]
    profiler_us: float = Field(description="what the profiler added to every node; subtracted")


def run(settings: CausesSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Profile a variant and name what makes it slow.

    Inputs:
        variant: onnx or tflite.
        baseline: the checkpoint as fp32 onnx.
        data: dataset; the batch is taken from its validation split.

    Facts: `causes` (see `Cause`), `operators` and `baseline_operators` (at most twelve, see `OperatorTime`),
    `runtime`, `method`, `per_inference_us`, `baseline_per_inference_us`, `ratio`, `profiler_us`, `threads`,
    `batch`, `host`. The ratio is of a short run: what a gate decides on is measured by `benchmark.latency`.

    Raises:
        ToolchainError: a file cannot be loaded or run, or the runtime's profile cannot be read.
        DataError: there are fewer validation samples than the batch takes.
    """
    x = Dataset(inputs["data"].path).features(SplitName.VALIDATION, 0, settings.batch)
    if len(x) < settings.batch:
        raise DataError(
            "There are fewer validation samples than one batch of the benchmark takes.",
            where="benchmark.batch",
            expected=f"at most {len(x)}",
            got=settings.batch,
        )
    variant = inputs["variant"]
    found = explain(
        variant.path, variant.artifact.kind, x, inputs["baseline"].path, settings.threads, report=context.report
    )
    facts: dict[str, Any] = found.model_dump(mode="json")
    facts |= {"threads": settings.threads, "batch": settings.batch, "host": fingerprint()}
    return Outputs(facts=facts)


def explain(
    path: Path,
    kind: str,
    x: NDArray[np.float32],
    baseline_path: Path | None = None,
    threads: int = 1,
    *,
    machine: str | None = None,
    report: Callable[[float | None, str], None] = lambda fraction, message: None,
) -> Explanation:
    """Profile a model file on the runtime that it ships to, and name what makes it slow.

    Args:
        path: the model file.
        kind: onnx or tflite.
        x: float32 (N, ...), one batch of samples.
        baseline_path: the fp32 model as onnx to compare with; without it only causes that stand on their
            own are named.
        threads: of one inference.
        machine: CPU architecture that the rules assume, this machine's if left out.
        report: told what is going on.

    Raises:
        ToolchainError: a file cannot be loaded or run, or the runtime's profile cannot be read.
    """
    with pinned(threads):
        report(0.1, "timing without the profiler")
        times, ratio = _timed(path, kind, x, baseline_path, threads)
        report(0.5, f"profiling with {runtime_of(kind).name}")
        baseline = None
        if baseline_path is not None:
            baseline = profile_onnx(baseline_path, x, threads, times["baseline"], times["empty"]).profile
        name_causes: Callable[[Case], list[Cause]]
        if kind == "tflite":
            profile = profile_litert(path, x, threads, times["variant"])
            types = tensor_types(path, threads)
            name_causes = partial(causes_litert.name_causes, types=types)
        else:
            found = profile_onnx(path, x, threads, times["variant"], times["empty"])
            profile = replace(found.profile, fixed_us=_fixed(x, len(found.profile.nodes), threads))
            graph = GraphView(found.model, found.nodes, found.stored)
            name_causes = partial(causes_onnx.name_causes, graph=graph)
    slower = None if ratio is None else ratio >= NOT_FASTER
    case = Case(profile, baseline, slower, machine or platform.machine())
    return Explanation(
        runtime=profile.runtime,
        method=profile.method,
        per_inference_us=profile.per_inference_us,
        baseline_per_inference_us=times.get("baseline"),
        ratio=ratio,
        causes=ranked(case, name_causes(case)),
        operators=by_operator(profile, _SHOWN),
        baseline_operators=() if baseline is None else by_operator(baseline, _SHOWN),
        profiler_us=profile.overhead_us,
    )


def ranked(case: Case, found: list[Cause]) -> tuple[Cause, ...]:
    """The causes worth naming, by the time they cost; `unexplained` if a slow model has none.

    Args:
        case: profile, baseline and machine.
        found: what the rules found, in any order.
    """
    worth = [cause for cause in found if cause.share_of_time >= MINOR_SHARE]
    worth.sort(key=lambda cause: (-cause.us, cause.cause))
    if worth or not case.slower:
        return tuple(worth)
    return (same_operators(case) or _unexplained(case),)


def _unexplained(case: Case) -> Cause:
    top = by_operator(case.profile, _UNEXPLAINED)
    parts = listed(f"{row.operator} x {row.count} with {number(row.us)} us ({percent(row.share)})" for row in top)
    text = (
        "It is not faster than the fp32 baseline, and none of the known causes is to be seen in its profile. "
        f"Most time goes to {parts or 'no operator at all'}."
    )
    return Cause(
        cause="unexplained",
        title="no known cause",
        text=text,
        operators=tuple(f"{row.operator} x {row.count}" for row in top),
        share_of_time=sum(row.share for row in top),
        us=sum(row.us for row in top),
        remedy="Compare the table of operators with the baseline's.",
    )


def _timed(
    path: Path, kind: str, x: NDArray[np.float32], baseline: Path | None, threads: int
) -> tuple[dict[str, float], float | None]:
    """Median microseconds of a call of each model, in interleaved blocks, and the ratio within the rounds."""
    with tempfile.TemporaryDirectory(prefix="edgemill-empty-") as folder:
        calls = {"variant": open_model(path, kind, threads).prepare(x)}
        if baseline is not None:
            calls["baseline"] = open_model(baseline, "onnx", threads).prepare(x)
        if kind == "onnx" or baseline is not None:
            calls["empty"] = open_model(empty_model(x, Path(folder) / "empty.onnx"), "onnx", threads).prepare(x)
        once = 0.0
        for call in calls.values():
            call()
            start = time.perf_counter()
            call()
            once += time.perf_counter() - start
        runs = max(1, min(_RUNS, int(_BUDGET_S / _ROUNDS / max(once, 1e-9))))
        rounds = max(3, min(_ROUNDS, int(_BUDGET_S / max(once * runs, 1e-9))))
        blocks: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                blocks[name].append(float(np.median(time_block(call, runs))) / 1e3)
    medians = {name: float(np.median(values)) for name, values in blocks.items()}
    if baseline is None:
        return medians, None
    return medians, float(np.median(np.divide(blocks["variant"], blocks["baseline"])))


def _fixed(x: NDArray[np.float32], nodes: int, threads: int) -> float:
    """Median microseconds of a call that runs as many operators and computes next to nothing."""
    with tempfile.TemporaryDirectory(prefix="edgemill-empty-") as folder:
        call = open_model(empty_model(x, Path(folder) / "empty.onnx", max(0, nodes - 1)), "onnx", threads).prepare(x)
        return float(np.median([np.median(time_block(call, _RUNS)) for _ in range(_ROUNDS)])) / 1e3
