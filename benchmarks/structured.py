"""Structured pruning on workload W1: accuracy against MACs kept (1, 0.5, 0.25, 0.12), three ways.

    pruned      channels of the checkpoint removed in rounds, with training after each
    narrowed    a fresh student, every layer scaled alike to the same MACs, distilled
    both        a wider student (of the root of the share) distilled, then pruned to the same MACs

All learn from the same teacher's answers to the same views of the same samples, for the same number of
epochs altogether; `both` spends half of them on each part. The epochs of a smaller model take less time: the
budget is samples seen, not seconds. Latency of the int8 files is measured in one interleaved run, batch 1, one
thread. With --work, rows that are finished are not made again; with --json a picture is drawn beside the figures.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Claim, arguments, context, finish, input_file, interleaved, ratio
from benchmarks.structured_picture import draw
from benchmarks.w1 import w1_data
from edgemill.artifact import digest_path
from edgemill.channels import ChannelsSettings
from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import AnswersSettings, DistillSettings
from edgemill.files import write_atomically
from edgemill.quantize import LitertScheme, LitertSettings, StaticSettings
from edgemill.recipe import Augment, Checkpoint, Student, Task
from edgemill.runtimes import open_model
from edgemill.step import InputFile
from edgemill.targets import load_target

CHECKPOINT = Path(__file__).resolve().parent.parent / "examples" / "fashion_mnist" / "fashion_teacher.keras"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
SHARES = (0.5, 0.25, 0.12)
METHODS = ("pruned", "narrowed", "both")
SEED = 7
EPOCHS, VIEWS, BATCH = 16, 4, 128
QUICK_EPOCHS, QUICK_VIEWS, QUICK_BATCH = 4, 1, 64
QUICK_LIMITS = {SplitName.TRAIN: 6000, SplitName.VALIDATION: 1000, SplitName.TEST: 2000}
GRID = 48
"""Widths that are tried: 1/48 to 48/48, because the widest layer has 192 channels and counts are multiples of 4."""
TOOLS = ("onnx", "onnxruntime", "tensorflow", "tf-keras", "ai-edge-litert", "numpy")
COLUMNS = (
    "method", "share", "macs_kept", "parameters", "accuracy", "drop", "litert_accuracy", "ort_accuracy", "litert_ms",
    "litert_ratio", "ort_ms", "ort_ratio", "epochs", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """What every row needs.

    Attributes:
        work: folder for what is written.
        inputs: `keras` (the checkpoint), `teacher` (its fp32 ONNX), `data`, `answers`.
        macs: of the checkpoint.
        epochs: of every row.
        batch: samples per update.
        augment: of all training.
    """

    work: Path
    inputs: Mapping[str, InputFile]
    macs: int
    epochs: int
    batch: int
    augment: Augment


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="what is made smaller, and the teacher")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument("--work", type=Path, help="folder that keeps finished rows; default: none are kept")
    options = parser.parse_args()
    for path in (options.checkpoint, options.data):
        if not path.exists():
            parser.error(f"{path} is not there")
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        rows = measure(work, options.checkpoint, options.data, options.quick)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        draw(rows, options.json.with_suffix(".svg"))
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    cell = {(row["method"], row["share"]): row for row in rows}
    whole, quarter = cell["checkpoint", 1.0], cell["pruned", 0.25]
    made = [row for row in rows if row["method"] != "checkpoint"]
    found = [
        Claim("most_macs_for_those_asked", max(row["macs_kept"] / row["share"] for row in made), "<=", 1.0),
        Claim("least_macs_for_those_asked", min(row["macs_kept"] / row["share"] for row in made), ">=", 0.85),
        Claim("pruned_to_half_drop", cell["pruned", 0.5]["drop"], "<=", 0.02),
    ]
    for share in SHARES:
        best = max(cell[method, share]["accuracy"] for method in ("pruned", "both"))
        gain = best - cell["narrowed", share]["accuracy"]
        found.append(Claim(f"pruning_helps_at_{share:g}", gain, ">=", -0.003))
    # Less of the time of onnxruntime is in what shrinks with the channels.
    for runtime, bound in (("litert", 0.6), ("ort", 0.75)):
        value = quarter[f"{runtime}_ms"] / whole[f"{runtime}_ms"]
        found.append(Claim(f"quarter_of_macs_in_{runtime}_int8_time", value, "<=", bound))
    return found


def measure(work: Path, checkpoint: Path, data_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Make all models and measure them; one row a model."""
    bench = _prepare(work, checkpoint, data_folder, quick)
    rows = [_row(bench, "checkpoint", 1.0)]
    rows += [_row(bench, method, share) for share in SHARES for method in METHODS]
    drop_from = rows[0]["accuracy"]
    for row in rows:
        row["drop"] = drop_from - row["accuracy"]
    _time(bench, rows, rounds=30 if quick else 200)
    return rows


def _prepare(work: Path, checkpoint: Path, data_folder: Path, quick: bool) -> Bench:
    from edgemill.distill import answers
    from edgemill.ingest import checkpoint as ingest

    folder = work / f"given-{'quick' if quick else 'full'}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    data = w1_data(folder, data_folder, QUICK_LIMITS if quick else None)
    source = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    made = ingest.run(Checkpoint(path=str(checkpoint)), source, context(folder / "ingest", SEED)).files
    teacher = input_file(made["onnx"].path, "onnx")
    augment = Augment(flip=True, shift=2, views=QUICK_VIEWS if quick else VIEWS)
    told = answers.run(
        AnswersSettings(task=Task.CLASSIFICATION, augment=augment),
        {"teacher": teacher, "data": data},
        context(folder / "answers", SEED),
    )
    inputs = {
        "keras": input_file(made["keras"].path, "keras"),
        "teacher": teacher,
        "data": data,
        "answers": input_file(told.files["answers"].path, "answers"),
    }
    macs = _macs(_load(made["keras"].path), data)
    epochs, batch = (QUICK_EPOCHS, QUICK_BATCH) if quick else (EPOCHS, BATCH)
    return Bench(work, inputs, macs, epochs, batch, augment)


def _row(bench: Bench, method: str, share: float) -> dict[str, Any]:
    """A row without its times; from an earlier run where that had the same settings, data and versions."""
    name = f"{method}-{share:g}-{bench.epochs}"
    folder, file = bench.work / name, bench.work / f"{name}.json"
    identity = {
        "inputs": {key: digest_path(item.path) for key, item in bench.inputs.items()},
        "epochs": bench.epochs,
        "batch": bench.batch,
        "augment": bench.augment.model_dump(mode="json"),
        "versions": _versions(),
    }
    if file.exists() and (kept := json.loads(file.read_text()))["identity"] == identity:
        print(f"  {name}: kept from an earlier run", flush=True)
        return dict(kept["row"])
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    keras, onnx, details = _make(bench, method, share, folder)
    row = {"method": method, "share": share, "seconds": round(time.monotonic() - began, 1)}
    row |= _judged(bench, keras, onnx, folder) | details
    write_atomically(file, json.dumps({"identity": identity, "row": row}))
    return row


def _make(bench: Bench, method: str, share: float, folder: Path) -> tuple[InputFile, InputFile, dict[str, Any]]:
    """The model of a row as Keras and as ONNX, and how it came about."""
    if method == "checkpoint":
        return bench.inputs["keras"], bench.inputs["teacher"], {"epochs": 0}
    if method == "pruned":
        keras, onnx, facts = _pruned(bench, bench.inputs["keras"], share, bench.epochs, folder)
        return keras, onnx, {"epochs": bench.epochs, "pruning": facts}
    if method == "narrowed":
        keras, onnx, facts = _narrowed(bench, share, bench.epochs, folder)
        return keras, onnx, {"epochs": bench.epochs, "distilling": facts}
    half = bench.epochs // 2
    student, _, facts = _narrowed(bench, math.sqrt(share), half, folder)
    left = share * bench.macs / _macs(_load(student.path), bench.inputs["data"])
    keras, onnx, more = _pruned(bench, student, left, bench.epochs - half, folder)
    return keras, onnx, {"epochs": bench.epochs, "distilling": facts, "pruning": more}


def _pruned(
    bench: Bench, keras: InputFile, keep: float, epochs: int, folder: Path
) -> tuple[InputFile, InputFile, dict[str, Any]]:
    from edgemill.channels import prune

    settings = ChannelsSettings(
        task=Task.CLASSIFICATION, keep=keep, epochs=epochs, batch_size=bench.batch, augment=bench.augment
    )
    made = prune.run(settings, {**bench.inputs, "keras": keras}, context(folder / "prune", SEED))
    facts = {key: made.facts[key] for key in ("groups", "score", "score_before")}
    facts["rounds"] = [
        {key: entry[key] for key in ("cost", "score_before", "score_removed", "score_reestimated", "score", "epochs")}
        for entry in made.facts["history"]
    ]
    return input_file(made.files["keras"].path, "keras"), input_file(made.files["onnx"].path, "onnx"), facts


def _narrowed(bench: Bench, share: float, epochs: int, folder: Path) -> tuple[InputFile, InputFile, dict[str, Any]]:
    from edgemill.distill import student

    width = _width(bench, share)
    settings = DistillSettings(
        task=Task.CLASSIFICATION,
        student=Student(width=width),
        epochs=epochs,
        batch_size=bench.batch,
        augment=bench.augment,
    )
    made = student.run(settings, bench.inputs, context(folder / "distill", SEED))
    facts = {"width": width, "score": made.facts["score"]}
    return input_file(made.files["keras"].path, "keras"), input_file(made.files["onnx"].path, "onnx"), facts


def _width(bench: Bench, share: float) -> float:
    """The largest width with at most this share of the MACs."""
    from edgemill.distill.narrow import narrow

    teacher = _load(bench.inputs["keras"].path)
    low, high = 1, GRID
    while low < high:
        middle = (low + high + 1) // 2
        fits = _macs(narrow(teacher, middle / GRID), bench.inputs["data"]) <= share * bench.macs
        low, high = (middle, high) if fits else (low, middle - 1)
    return low / GRID


def _judged(bench: Bench, keras: InputFile, onnx: InputFile, folder: Path) -> dict[str, Any]:
    """Quantize a model and answer the test split with all three files."""
    from edgemill.quantize import litert, static

    data = bench.inputs["data"]
    tflite = litert.run(
        LitertSettings(scheme=LitertScheme.INT8_STATIC),
        {"keras": keras, "data": data},
        context(folder / "litert", SEED, quiet=True),
    ).files["tflite"]
    int8 = static.run(
        StaticSettings(int8=load_target("x86-64-vnni").int8),
        {"onnx": onnx, "data": data},
        context(folder / "static", SEED, quiet=True),
    ).files["onnx"]
    kept = {"fp32": folder / "fp32.onnx", "litert": folder / "int8.tflite", "ort": folder / "int8.onnx"}
    for name, path in (("fp32", onnx.path), ("litert", tflite.path), ("ort", int8.path)):
        shutil.copyfile(path, kept[name])
    dataset = Dataset(data.path)
    x, labels = dataset.features(SplitName.TEST), dataset.labels(SplitName.TEST)
    right = {
        name: float((open_model(path, _kind(path), 1).predict(x).argmax(axis=1) == labels).mean())
        for name, path in kept.items()
    }
    model = _load(keras.path)
    macs = _macs(model, data)
    return {
        "macs": macs,
        "macs_kept": macs / bench.macs,
        "parameters": int(model.count_params()),
        "accuracy": right["fp32"],
        "litert_accuracy": right["litert"],
        "ort_accuracy": right["ort"],
        "test_samples": len(labels),
        "files": {name: str(path.relative_to(bench.work)) for name, path in kept.items()},
    }


def _time(bench: Bench, rows: list[dict[str, Any]], rounds: int) -> None:
    """Add the times of the int8 files, and their ratio to the fp32 checkpoint in onnxruntime."""
    one = Dataset(bench.inputs["data"].path).features(SplitName.VALIDATION, 0, 1)
    names = {(index, runtime): row["files"][runtime] for index, row in enumerate(rows) for runtime in ("litert", "ort")}
    models = {
        f"{index}-{runtime}": open_model(bench.work / name, _kind(Path(name)), 1)
        for (index, runtime), name in names.items()
    }
    models["fp32"] = open_model(bench.work / rows[0]["files"]["fp32"], "onnx", 1)
    times = interleaved({name: model.prepare(one) for name, model in models.items()}, rounds)
    for index, row in enumerate(rows):
        for runtime in ("litert", "ort"):
            mine = times[f"{index}-{runtime}"]
            row[f"{runtime}_ms"] = float(np.median(mine)) / 1e6
            row[f"{runtime}_ratio"] = ratio(mine, times["fp32"])
            row[f"{runtime}_round_medians_us"] = [round(float(np.median(line)) / 1e3, 2) for line in mine]
    rows[0]["fp32_ms"] = float(np.median(times["fp32"])) / 1e6


def _kind(path: Path) -> str:
    return "tflite" if path.suffix == ".tflite" else "onnx"


def _load(path: Path) -> Any:
    from edgemill.tf import keras

    return keras.models.load_model(path, compile=False)


def _macs(model: Any, data: InputFile) -> int:
    from edgemill.channels.cost import MacsCost
    from edgemill.channels.groups import find_groups
    from edgemill.channels.plan import Costs, sizes_of
    from edgemill.channels.trace import trace

    channels = find_groups(trace(model, Dataset(data.path).sample_shape))
    return int(Costs(channels, MacsCost()).total(sizes_of(channels)))


def _versions() -> dict[str, int]:
    from edgemill.channels import CHANNELS
    from edgemill.distill import DISTILL
    from edgemill.quantize import LITERT, STATIC

    return {step.name: step.version for step in (CHANNELS, DISTILL, LITERT, STATIC)}


if __name__ == "__main__":
    sys.exit(main())
