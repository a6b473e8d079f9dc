"""One judge for all: Edgemill's gate on the test split, sizes, and latency in one interleaved run.

Every model answers in its own runtime (onnxruntime or LiteRT, as its file says), with the steps that judge
Edgemill's variants. A verdict is of a model on its own, at 95 %; it says nothing about a best of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import context, input_file, interleaved
from benchmarks.peers.contenders import Made
from benchmarks.peers.workload import SEED, Workload
from edgemill.artifact import size_of
from edgemill.benchmark.interval import round_ratios, typical
from edgemill.benchmark.sizes import sizes
from edgemill.data.dataset import SplitName
from edgemill.errors import EdgemillError
from edgemill.recipe import Budget, Task
from edgemill.runtimes import LoadedModel, open_model
from edgemill.step import InputFile
from edgemill.validate import GateFacts, GateSettings, PredictSettings, gate, predict

MARGINS = {"005": 0.005, "01": 0.01}
"""Margins by the suffix of their columns."""
BASELINE = "fp32"
CONFIDENCE = 0.95
RUNTIMES = {"onnx": "onnxruntime", "tflite": "LiteRT"}


def judge(work: Path, workload: Workload, models: Sequence[Made], rounds: int, runs: int) -> list[dict[str, Any]]:
    """Score, weigh and time all models.

    Args:
        work: empty folder for what is written.
        workload: with the test split.
        models: without the baseline.
        rounds: of the interleaved run.
        runs: timed inferences of a model in a round.

    Returns:
        One row a model, the fp32 checkpoint in onnxruntime first. A model that is not there, does not load or does
        not answer has `failure` and no figures.
    """
    base = Made(BASELINE, "baseline", "the checkpoint, fp32 ONNX", (workload.teacher,))
    rows: list[dict[str, Any]] = []
    loaded: dict[str, LoadedModel] = {}
    reference: InputFile | None = None
    compressed = _weigh(base)["compressed_bytes"]
    for made in (base, *models):
        row = _about(made)
        try:
            if made.files:
                row |= _weigh(made)
                row["compressed_ratio"] = row["compressed_bytes"] / compressed
                loaded[made.name] = open_model(made.files[0], made.kind)
                answers = _answers(work / f"{len(rows)}", workload, made)
                reference = reference or answers
                row |= _verdicts(work / f"{len(rows)}", workload, answers, reference)
        except EdgemillError as error:
            loaded.pop(made.name, None)
            row["failure"] = str(error)
        rows.append(row)
    _time(rows, workload, loaded, rounds, runs)
    return rows


def _about(made: Made) -> dict[str, Any]:
    return {
        "model": made.name,
        "who": made.who,
        "title": made.title,
        "runtime": RUNTIMES[made.kind] if made.files else None,
        "failure": made.failure,
        "seconds": made.seconds,
        "peak_rss_mb": made.peak_rss_mb,
        "installed_mb": made.installed_mb,
        "installed_s": made.installed_s,
        "notes": made.notes,
    }


def _weigh(made: Made) -> dict[str, Any]:
    """Bytes of all files that the model needs, raw and each after gzip -9."""
    return {
        "files": [path.name for path in made.files],
        "bytes": sum(size_of(path) for path in made.files),
        "compressed_bytes": sum(sizes(path)["compressed_bytes"] for path in made.files),
    }


def _answers(work: Path, workload: Workload, made: Made) -> InputFile:
    settings = PredictSettings(split=SplitName.TEST, task=Task.CLASSIFICATION)
    inputs = {"model": input_file(made.files[0], made.kind), "data": workload.dataset}
    outputs = predict.run(settings, inputs, context(work / "predict", SEED, quiet=True))
    return input_file(outputs.files["predictions"].path, "predictions")


def _verdicts(work: Path, workload: Workload, answers: InputFile, reference: InputFile) -> dict[str, Any]:
    row: dict[str, Any] = {}
    inputs = {"variant": answers, "baseline": reference, "data": workload.dataset}
    for suffix, margin in MARGINS.items():
        budget = Budget(max_accuracy_drop=margin, confidence=CONFIDENCE)
        settings = GateSettings(task=Task.CLASSIFICATION, budget=budget)
        outputs = gate.run(settings, inputs, context(work / f"gate{suffix}", SEED, quiet=True))
        facts = GateFacts.model_validate(outputs.facts)
        row |= {
            "n": facts.main.n,
            "accuracy": facts.accuracy,
            "lost": facts.lost,
            "won": facts.won,
            "drop": facts.main.estimate,
            "drop_upper": facts.main.upper,
            f"verdict_{suffix}": str(facts.verdict.verdict),
        }
    return row


def _time(
    rows: list[dict[str, Any]], workload: Workload, loaded: dict[str, LoadedModel], rounds: int, runs: int
) -> None:
    one = workload.data.features(SplitName.VALIDATION, 0, 1)
    times = interleaved({name: model.prepare(one) for name, model in loaded.items()}, rounds, runs)
    base = times[BASELINE].astype(np.float64)
    for row in rows:
        if row["model"] in times:
            own = times[row["model"]].astype(np.float64)
            ratio = typical(round_ratios(own, base), CONFIDENCE)
            row |= {
                "latency_ratio": ratio.value,
                "latency_ratio_lower": ratio.lower,
                "latency_ratio_upper": ratio.upper,
                "p95_ratio": float(np.percentile(own, 95) / np.percentile(base, 95)),
                "p50_us": float(np.median(own)) / 1e3,
                "round_p50_ns": [int(value) for value in np.median(own, axis=1)],
            }
