"""Quantization-aware training to ONNX on workload W1 (Fashion-MNIST, 684 k parameters).

Shows that the ONNX file that `quantize.qat` writes is as small and as fast as a file from post-training
quantization, answers like the trained Keras model, and is not less accurate.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Claim, arguments, context, finish, input_file, interleaved, ratio
from benchmarks.w1 import w1_data
from edgemill.artifact import size_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.quantize import QatSettings, StaticSettings
from edgemill.recipe import Checkpoint, Qat
from edgemill.runtimes import open_model
from edgemill.targets import load_target

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = (
    ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras",
    ROOT.parent / "shared" / "reference" / "fashion_teacher.keras",
)
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
QUICK_TRAINING_SAMPLES = 20_000
SEED = 7
TOOLS = ("onnx", "onnxruntime", "tensorflow", "tf-keras", "tensorflow-model-optimization", "tf2onnx", "numpy")
COLUMNS = (
    "model",
    "bytes",
    "size_ratio",
    "p50_ms",
    "latency_ratio",
    "latency_vs_ptq",
    "test_accuracy",
    "qat_agreement",
)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the one in examples/fashion_mnist")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    options = parser.parse_args()
    checkpoint = options.checkpoint or next((path for path in CHECKPOINTS if path.exists()), None)
    if checkpoint is None or not checkpoint.exists():
        parser.error(f"no checkpoint at {checkpoint or CHECKPOINTS[0]}; give one with --checkpoint")
    if not options.data.is_dir():
        parser.error(f"no Fashion-MNIST at {options.data}; set FASHION_MNIST_DIR")
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        rows = measure(Path(folder), checkpoint, options.data, options.quick)
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    by_model = {row["model"]: row for row in rows}
    qat, ptq = by_model["qat"], by_model["ptq"]
    return [
        Claim("qat_size_vs_fp32", qat["size_ratio"], "<=", 0.30),
        Claim("qat_latency_vs_fp32", qat["latency_ratio"], "<=", 0.45),
        Claim("qat_latency_vs_ptq", qat["latency_vs_ptq"], "<=", 1.05),
        Claim("qat_argmax_agreement_with_keras", qat["qat_agreement"], ">=", 0.995),
        Claim("qat_accuracy_minus_ptq", qat["test_accuracy"] - ptq["test_accuracy"], ">=", 0.0),
    ]


def measure(work: Path, checkpoint: Path, data_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Make the three models and measure them; one row a model."""
    from edgemill.ingest import checkpoint as ingest
    from edgemill.quantize import qat, static

    data = w1_data(work, data_folder, {SplitName.TRAIN: QUICK_TRAINING_SAMPLES} if quick else None)
    source = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), source, context(work / "ingest", SEED)).files
    fp32 = input_file(base["onnx"].path, "onnx")
    arithmetic = load_target("x86-64-vnni").int8
    ptq = static.run(
        StaticSettings(int8=arithmetic), {"onnx": fp32, "data": data}, context(work / "ptq", SEED, quiet=True)
    )
    training = Qat(epochs=1, batch_size=128, learning_rate=1e-4, soft_weight=0.3)
    inputs = {"keras": input_file(base["keras"].path, "keras"), "teacher": fp32, "data": data}
    trained = qat.run(QatSettings(training=training), inputs, context(work / "qat", SEED))
    files = {"fp32": fp32.path, "ptq": ptq.files["onnx"].path, "qat": trained.files["onnx_uint8"].path}
    details = {"ptq": ptq.facts, "qat": trained.facts}
    return _rows(files, Dataset(data.path), details, rounds=30 if quick else 100)


def _rows(
    files: Mapping[str, Path], data: Dataset, details: Mapping[str, Mapping[str, Any]], rounds: int
) -> list[dict[str, Any]]:
    models = {name: open_model(path, "onnx", 1) for name, path in files.items()}
    one = data.features(SplitName.VALIDATION, 0, 1)
    times = interleaved({name: model.prepare(one) for name, model in models.items()}, rounds)
    x, labels = data.features(SplitName.TEST), data.labels(SplitName.TEST)
    rows: list[dict[str, Any]] = []
    for name, path in files.items():
        right = models[name].predict(x).argmax(axis=1) == labels
        facts = details.get(name, {})
        rows.append(
            {
                "model": name,
                "bytes": size_of(path),
                "size_ratio": size_of(path) / size_of(files["fp32"]),
                "p50_ms": float(np.median(times[name])) / 1e6,
                "latency_ratio": ratio(times[name], times["fp32"]),
                "latency_vs_ptq": ratio(times[name], times["ptq"]),
                "test_accuracy": float(right.mean()),
                "test_samples": len(labels),
                "qat_agreement": facts["agreement"]["onnx_uint8"]["argmax_agreement"] if name == "qat" else None,
                "kernels": (facts["kernels"]["onnx_uint8"] if name == "qat" else facts.get("kernels")),
                "latency_ns": _plain(times[name]),
            }
        )
    return rows


def _plain(times: NDArray[np.int64]) -> list[list[int]]:
    return [[int(value) for value in line] for line in times]


if __name__ == "__main__":
    sys.exit(main())
