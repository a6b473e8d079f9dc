"""Memory and time of calibration on workload W1 (Fashion-MNIST, 684 k parameters), over the number of samples.

Each of Edgemill's calibrators is next to onnxruntime's own, fed as `quantize_static` feeds them (all batches
in one call) and, for the two that keep activations, one batch a call. Every measurement is a fresh process;
its peak resident size counts less that before calibration. A process that grows over --limit-gib or takes
longer than --limit-seconds is stopped, and its row says so.

Models quantized with the ranges of the fewest samples are then scored on the 10,000 test images.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.common import Claim, arguments, context, finish, input_file
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.recipe import Calibration, Checkpoint, Data, Preprocess, Split, Task
from edgemill.runtimes import open_model

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
COUNTS = (300, 3_000, 30_000)
QUICK_COUNTS = (100, 500, 2_500)
BATCH = 50
"""Divides every count: onnxruntime's collectors cannot stack a smaller last batch."""
PERCENTILE = 99.99
MEMORY_BYTES = 1 << 30
SEED = 7
POLL_S = 0.02
OURS = tuple(f"edgemill {method}" for method in Calibration)
# "each": one batch a call.
THEIRS = (
    "onnxruntime MinMax",
    "onnxruntime Entropy",
    "onnxruntime Percentile",
    "onnxruntime Entropy each",
    "onnxruntime Percentile each",
)
TOOLS = ("onnx", "onnxruntime", "numpy", "psutil")
COLUMNS = ("calibrator", "samples", "peak_mib", "estimate_mib", "seconds", "outcome", "samples_seen", "test_accuracy")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument("--limit-gib", type=float, default=8.0, help="memory at which a process is stopped")
    parser.add_argument("--limit-seconds", type=float, default=600.0, help="time after which a process is stopped")
    parser.add_argument("--observe", nargs=3, metavar=("CALIBRATOR", "GRAPH", "DATA"), help="one measurement, here")
    options = parser.parse_args()
    if options.observe:
        observe(options.observe[0], Path(options.observe[1]), Path(options.observe[2]))
        return 0
    for path, what in ((options.checkpoint, "checkpoint"), (options.data, "Fashion-MNIST folder")):
        if not path.exists():
            parser.error(f"no {what} at {path}")
    counts = QUICK_COUNTS if options.quick else COUNTS
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as name:
        work = Path(name)
        graph, whole = prepare(work, options.checkpoint, options.data, max(counts))
        sets = {count: first(whole, count, work / f"data-{count}") for count in counts}
        rows = [
            measure(calibrator, graph, count, sets[count], options.limit_gib, options.limit_seconds)
            for calibrator in (*OURS, *THEIRS)
            for count in counts
        ]
        scores = accuracies(work, graph, sets[min(counts)])
    for row in rows:
        if row["samples"] == min(counts):
            row["test_accuracy"] = scores.get(row["calibrator"])
    rows.append({"calibrator": "none (fp32)", "test_accuracy": scores["none (fp32)"]})
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    made = []
    for name in OURS:
        mine = [row for row in rows if row["calibrator"] == name]
        peaks = [row["peak_mib"] if row["outcome"] == "finished" else float("nan") for row in mine]
        method = name.split()[1]
        made.append(Claim(f"{method}_highest_to_lowest_peak", max(peaks) / min(peaks), "<=", 1.10))
        made.append(Claim(f"{method}_peak_to_estimate", max(peaks) / mine[0]["estimate_mib"], "<=", 1.0))
    scores = {row["calibrator"]: row["test_accuracy"] for row in rows if row.get("test_accuracy") is not None}
    best = max(scores[name] for name in THEIRS if name in scores)
    worst = min(scores[name] for name in OURS)
    return [*made, Claim("worst_accuracy_minus_best_of_onnxruntime", worst - best, ">=", -0.005)]


def measure(calibrator: str, graph: Path, count: int, data: Path, limit_gib: float, limit_s: float) -> dict[str, Any]:
    """One calibration in a fresh process, stopped at the limits; one row."""
    command = [sys.executable, "-m", "benchmarks.calibration_memory", "--observe", calibrator, str(graph), str(data)]
    seen: dict[str, Any] = {"samples_seen": 0}
    stopped, highest, start = None, 0, time.monotonic()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, stdout=told, cwd=ROOT)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                highest = max(highest, watched.memory_info().rss)
            if highest > limit_gib * 2**30:
                stopped = f"stopped at {limit_gib:g} GiB"
            elif time.monotonic() - start > limit_s:
                stopped = f"stopped after {limit_s:g} s"
            if stopped:
                process.kill()
                process.wait()
                break
            time.sleep(POLL_S)
        seconds = time.monotonic() - start
        told.seek(0)
        for line in told:
            with contextlib.suppress(json.JSONDecodeError):  # the last line of a killed process may be half
                seen |= json.loads(line)
    if stopped is None and process.returncode:
        stopped = f"exit status {process.returncode}"
    peak = seen.get("peak_bytes", highest) - seen.get("baseline_bytes", 0)
    row = {
        "calibrator": calibrator,
        "samples": count,
        "peak_mib": peak / 2**20,
        "estimate_mib": seen["estimate_bytes"] / 2**20 if "estimate_bytes" in seen else None,
        "seconds": seen.get("seconds", seconds),
        "outcome": stopped or "finished",
        "samples_seen": seen["samples_seen"],
        "tensors": seen.get("tensors"),
    }
    print(f"{calibrator}, {count}: {row['peak_mib']:.1f} MiB, {row['seconds']:.1f} s, {row['outcome']}", flush=True)
    return row


def observe(calibrator: str, graph: Path, folder: Path) -> None:
    """Calibrate in this process, which must be fresh, and tell JSON lines."""
    # The imports of both sides belong to the baseline.
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    from edgemill.quantize.calibrate import find_ranges, plan_calibration

    data = Dataset(folder)
    who, method, *each = calibrator.split()
    tell(baseline_bytes=psutil.Process().memory_info().rss)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak of the imports; proc(5)
    start = time.perf_counter()
    if who == "edgemill":
        kind = Calibration(method)
        how = plan_calibration(graph, data, kind, BATCH, MEMORY_BYTES)
        ranges = find_ranges(graph, data, kind, PERCENTILE, how, lambda fraction, message: None)
        facts = {"samples_seen": data.sizes[SplitName.CALIBRATION], "estimate_bytes": how.estimate_bytes}
        tell(tensors=len(ranges), **facts)
    else:
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            made = create_calibrator(
                graph,
                augmented_model_path=str(Path(name) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[method],
                extra_options={"percentile": PERCENTILE},
            )
            reader = Batches(data, lambda seen: tell(samples_seen=seen))
            while reader.more:
                made.collect_data(reader.pause(BATCH) if each else reader)
            tell(tensors=len(list(made.compute_data().keys())))
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    tell(seconds=time.perf_counter() - start, peak_bytes=peak)


def tell(**facts: Any) -> None:
    """Hand facts to the measuring process; it believes the last ones."""
    print(json.dumps(facts), file=sys.__stdout__, flush=True)


class Batches:
    """The calibration samples as onnxruntime's calibrators read them."""

    def __init__(self, data: Dataset, seen: Callable[[int], None] = lambda samples: None) -> None:
        self._data = data
        self._seen = seen
        self._size = data.sizes[SplitName.CALIBRATION]
        self._at, self._stop = 0, self._size

    @property
    def more(self) -> bool:
        """Whether samples are left."""
        return self._at < self._size

    def pause(self, samples: int) -> Batches:
        """Give no more than `samples` until the next call."""
        self._stop = self._at + samples
        return self

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None at the end or at a pause."""
        self._seen(self._at)
        if self._at >= self._stop:
            return None
        start, self._at = self._at, self._at + BATCH
        return {"input": self._data.features(SplitName.CALIBRATION, start, self._at)}


def accuracies(work: Path, graph: Path, folder: Path) -> dict[str, float]:
    """Test accuracy of the fp32 model and of W1 in int8 (uint8 activations) by every calibrator, by its name."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

    from edgemill.quantize import StaticSettings, static
    from edgemill.targets import load_target

    data = Dataset(folder)
    arithmetic = load_target("x86-64-vnni").int8
    inputs = {"onnx": input_file(graph, "onnx"), "data": input_file(folder, "dataset")}
    models = {"none (fp32)": graph}
    for name in OURS:
        rule = StaticSettings(
            int8=arithmetic, calibration=Calibration(name.split()[1]), percentile=PERCENTILE, batch_size=BATCH
        )
        models[name] = static.run(rule, inputs, context(work / name, SEED, quiet=True)).files["onnx"].path
    for name in THEIRS:
        if name.endswith("each"):
            continue
        models[name] = work / f"{name}.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(graph),
                str(models[name]),
                Batches(data),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[name.split()[1]],
                extra_options={"CalibPercentile": PERCENTILE},
            )
    x, labels = data.features(SplitName.TEST), data.labels(SplitName.TEST)
    found = {name: open_model(path, "onnx", 1).predict(x).argmax(axis=1) for name, path in models.items()}
    return {name: float((answers == labels).mean()) for name, answers in found.items()}


def prepare(work: Path, checkpoint: Path, data_folder: Path, count: int) -> tuple[Path, Dataset]:
    """W1's graph, ready to be quantized, and data with at least `count` calibration samples."""
    from edgemill.data import LoadSettings, load
    from edgemill.ingest import checkpoint as ingest
    from edgemill.quantize.static import prepare as fuse

    source = Data(
        source="idx",
        path=str(data_folder),
        preprocess=Preprocess(scale=255, mean=0.2860, std=0.3530),
        split=Split(validation=5000, calibration=count, seed=20261122),
    )
    made = load.run(LoadSettings(data=source, task=Task.CLASSIFICATION), {}, context(work / "load", SEED, quiet=True))
    data = made.files["data"].path
    inputs = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": input_file(data, "dataset")}
    base = ingest.run(Checkpoint(path=str(checkpoint)), inputs, context(work / "ingest", SEED, quiet=True)).files
    fuse(base["onnx"].path, work / "graph.onnx")
    return work / "graph.onnx", Dataset(data)


def first(whole: Dataset, count: int, folder: Path) -> Path:
    """A dataset with the first `count` calibration samples of another."""
    folder.mkdir()
    limits = {split: count if split is SplitName.CALIBRATION else None for split in SplitName}
    limits[SplitName.TRAIN] = 1  # not used here
    write_dataset(
        folder,
        {split: whole.raw(split)[:limit] for split, limit in limits.items()},
        {split: whole.labels(split)[:limit] for split, limit in limits.items()},
        whole.preprocess,
    )
    return folder


if __name__ == "__main__":
    sys.exit(main())
