"""Latency at further batch sizes, where the files take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark.blocks import Call
from edgemill.benchmark.comparison import BASELINE, VARIANT, Comparison, Report
from edgemill.benchmark.cores import Pin
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, EdgemillError, ToolchainError
from edgemill.recipe import Benchmark
from edgemill.runtimes import open_model
from edgemill.step import InputFile


def measure_batches(
    files: Mapping[str, InputFile], data: Dataset, rule: Benchmark, confidence: float, pin: Pin, report: Report
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Compare at every size of `rule.batches`, in the same way as at `rule.batch`.

    Args:
        files: `variant` and `baseline`.
        data: the batches are taken from its validation split.
        rule: how much is measured at each size; the time budget is shared out among them.
        confidence: of the interval of the ratio.
        pin: where this process runs.
        report: told the progress.

    Returns:
        For every size {`batch`, `p50_ms`, `baseline_p50_ms`, `ratio`, `lower`, `upper`,
        `throughput_per_s`, `rounds`, `stopped`}, or {`batch`, `skipped`} with the reason; and all
        times, int64 (rounds, runs), by names like `batch8_variant_ns`.
    """
    facts: list[dict[str, Any]] = []
    samples: dict[str, NDArray[Any]] = {}
    for size in rule.batches:
        own = rule.model_copy(update={"batch": size, "time_budget_s": rule.time_budget_s / len(rule.batches)})
        try:
            x = batch_of(data, size)
            comparison = Comparison(loader(files, x, rule.threads), own, pin, _telling(report, size))
            estimate = comparison.run(confidence)
        except (DataError, ToolchainError) as error:
            where = "" if error.where is None else f" ({error.where.rpartition('/')[2]})"
            facts.append({"batch": size, "skipped": f"{error.what}{where}"})
            continue
        times = comparison.times(VARIANT)
        facts.append(
            {
                "batch": size,
                "p50_ms": float(np.median(times)) / 1e6,
                "baseline_p50_ms": float(np.median(comparison.times(BASELINE))) / 1e6,
                "ratio": estimate.value,
                "lower": estimate.lower,
                "upper": estimate.upper,
                "throughput_per_s": size * 1e9 / float(times.mean()),
                "rounds": len(times),
                "stopped": comparison.facts()["stopped"],
            }
        )
        samples |= {f"batch{size}_{name}_ns": comparison.times(name, every=True) for name in (VARIANT, BASELINE)}
    return facts, samples


def loader(files: Mapping[str, InputFile], x: NDArray[np.float32], threads: int) -> Callable[[], dict[str, Call]]:
    """A function that loads both models anew and gives a call of each that answers `x`."""
    return lambda: {name: _answering(files[name], x, threads) for name in (VARIANT, BASELINE)}


def batch_of(data: Dataset, size: int) -> NDArray[np.float32]:
    """The first validation samples, float32 (size, *sample_shape).

    Raises:
        DataError: there are not so many.
    """
    x = data.features(SplitName.VALIDATION, 0, size)
    if len(x) < size:
        raise DataError(
            "There are fewer validation samples than one batch of the benchmark takes.",
            where="benchmark.batch",
            expected=f"at most {len(x)}",
            got=size,
        )
    return x


def _answering(file: InputFile, x: NDArray[np.float32], threads: int) -> Call:
    model = open_model(file.path, file.artifact.kind, threads)
    fixed = model.signature.inputs[0].shape[0]
    if fixed not in (None, len(x)):
        raise ToolchainError(
            f"The file takes exactly {fixed} samples per inference.",
            where=str(file.path),
            expected=str(fixed),
            got=str(len(x)),
            remedy="export the model with a free batch size, or set benchmark.batch to its own",
        )
    call = model.prepare(x)
    try:
        answer = call()
    except EdgemillError:
        raise
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ToolchainError(
            f"The model cannot answer {len(x)} samples at once.",
            where=str(file.path),
            got=" ".join(str(error).split())[:200],
        ) from error
    if np.shape(answer)[:1] != (len(x),):
        raise ToolchainError(
            f"The model does not give {len(x)} answers to {len(x)} samples.",
            where=str(file.path),
            got=f"an output of shape {np.shape(answer)}",
        )
    return call


def _telling(report: Report, size: int) -> Report:
    return lambda _fraction, message: report(None, f"batch {size}, {message}")
