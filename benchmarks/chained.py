"""Chained compression on workload W1: prune, cluster and quantize, each keeping what the one before gained.

A narrow student of the example's checkpoint goes through every chain of pruning (0.5), clustering (16 or 32
values) and int8, by post-training quantization and by training under quantization. What counts is read from
the shipped LiteRT and ONNX files: zeros, distinct bytes of a layer, gzip bytes, accuracy on the test split.
tfmot's clustering with 16 values stands beside it, with the same optimizer, epochs and teacher.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Claim, arguments, context, finish, input_file
from benchmarks.w1 import w1_data
from edgemill.benchmark.sizes import sizes
from edgemill.cluster import ClusterSettings
from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import DistillSettings
from edgemill.prune import PruneSettings
from edgemill.quantize import LitertScheme, LitertSettings, QatSettings, StaticSettings
from edgemill.recipe import Augment, Checkpoint, Qat, Student, Task
from edgemill.runtimes import open_model
from edgemill.step import InputFile
from edgemill.targets import load_target

CHECKPOINT = Path(__file__).resolve().parent.parent / "examples" / "fashion_mnist" / "fashion_teacher.keras"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
WIDTH = 1 / 3
SPARSITY = 0.5
SEED = 7
QUICK_TRAINING_SAMPLES = 12_000
SMALLEST = 256
"""Layers with fewer weights are neither pruned nor clustered."""
TOOLS = ("onnx", "onnxruntime", "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")
COLUMNS = ("chain", "int8", "accuracy", "accuracy_ort", "zeros", "distinct_bytes", "gzip_litert", "gzip_ort", "ratio")
AUGMENT = Augment(flip=True, shift=2)


@dataclass(frozen=True)
class Bench:
    """What every step of the benchmark needs.

    Attributes:
        work: folder for what is written.
        data: the splits.
        teacher: fp32 ONNX of the checkpoint.
        epochs: of training the student, and of each compressing step.
    """

    work: Path
    data: InputFile
    teacher: InputFile
    epochs: Mapping[str, int]


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="the teacher")
    parser.add_argument("--student", type=Path, help="a trained Keras student; default: train one")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    options = parser.parse_args()
    for path in (options.checkpoint, options.data, *([options.student] if options.student else [])):
        if not path.exists():
            parser.error(f"{path} is not there")
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        rows = measure(Path(folder), options.checkpoint, options.student, options.data, options.quick)
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    by = {(row["chain"], row["int8"]): row for row in rows}
    ours = [row for row in rows if row["clusters"] is not None and not row["chain"].startswith("tfmot")]
    pruned = [row for row in rows if row["chain"].startswith("prune")]
    made = []
    for how in ("ptq", "qat"):
        plain = by["none", how]
        for chain, bound in (("cluster 32", 0.80), ("cluster 16", 0.70), ("prune + cluster 16", 0.58)):
            made.append(Claim(f"{chain}, {how}: gzip to unclustered", by[chain, how]["ratio"], "<=", bound))
        loss = plain["accuracy"] - min(row["accuracy"] for row in ours if row["int8"] == how)
        made.append(Claim(f"{how}: most accuracy lost by a chain with clusters", loss, "<=", 0.01))
    mine, peer = by["cluster 16", "ptq"], by["tfmot cluster 16", "ptq"]
    return [
        Claim("distinct bytes above the clusters", max(r["distinct_bytes"] - r["clusters"] for r in ours), "<=", 0),
        Claim("least zeros of a pruned chain", min(row["zeros"] for row in pruned), ">=", SPARSITY - 0.001),
        *made,
        Claim("cluster 16, ptq: gzip to tfmot's", mine["gzip_litert"] / peer["gzip_litert"], "<=", 0.92),
        Claim("cluster 16, ptq: accuracy minus tfmot's", mine["accuracy"] - peer["accuracy"], ">=", -0.002),
    ]


def measure(work: Path, checkpoint: Path, student: Path | None, data_folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Run every chain; one row a chain and way to int8."""
    from edgemill.ingest import checkpoint as ingest

    data = w1_data(work, data_folder, {SplitName.TRAIN: QUICK_TRAINING_SAMPLES} if quick else None)
    source = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), source, context(work / "ingest", SEED)).files
    epochs = {"student": 8, "prune": 3, "cluster": 2, "qat": 1}
    bench = Bench(work, data, input_file(base["onnx"].path, "onnx"), epochs)
    start = exported(bench, student) if student else distilled(bench, input_file(base["keras"].path, "keras"))
    halved = pruned(bench, start)
    chains = {
        ("none", None): start,
        ("prune", None): halved,
        ("cluster 32", 32): clustered(bench, start, 32),
        ("cluster 16", 16): clustered(bench, start, 16),
        ("prune + cluster 16", 16): clustered(bench, halved, 16),
        ("tfmot cluster 16", 16): clustered_by_tfmot(bench, start, 16),
    }
    rows = []
    for (name, clusters), model in chains.items():
        rows.append({"chain": name, "int8": "ptq", "clusters": clusters, **judged(bench, *by_ptq(bench, name, model))})
        if not name.startswith("tfmot"):
            files = by_qat(bench, name, model)
            rows.append({"chain": name, "int8": "qat", "clusters": clusters, **judged(bench, *files)})
    plain = {row["int8"]: row["gzip_litert"] for row in rows if row["chain"] == "none"}
    return [row | {"ratio": row["gzip_litert"] / plain[row["int8"]]} for row in rows]


def distilled(bench: Bench, teacher: InputFile) -> Mapping[str, InputFile]:
    """The student."""
    from edgemill.distill import student

    settings = DistillSettings(
        task=Task.CLASSIFICATION, student=Student(width=WIDTH), epochs=bench.epochs["student"], augment=AUGMENT
    )
    inputs = {"keras": teacher, "teacher": bench.teacher, "data": bench.data}
    return _files(student.run(settings, inputs, context(bench.work / "student", SEED)))


def exported(bench: Bench, path: Path) -> Mapping[str, InputFile]:
    """A student trained before."""
    from edgemill.ingest.export import keras_to_onnx
    from edgemill.tf import keras

    target = bench.work / "student.onnx"
    keras_to_onnx(keras.models.load_model(path, compile=False), target)
    return {"keras": input_file(path, "keras"), "onnx": input_file(target, "onnx")}


def pruned(bench: Bench, start: Mapping[str, InputFile]) -> Mapping[str, InputFile]:
    """Half of the weights 0."""
    from edgemill.prune import sparsity

    settings = PruneSettings(task=Task.CLASSIFICATION, sparsity=SPARSITY, epochs=bench.epochs["prune"], augment=AUGMENT)
    return _files(sparsity.run(settings, _inputs(bench, start), context(bench.work / "pruned", SEED)))


def clustered(bench: Bench, start: Mapping[str, InputFile], clusters: int) -> Mapping[str, InputFile]:
    """Weights that share values."""
    from edgemill.cluster import weights

    settings = ClusterSettings(
        task=Task.CLASSIFICATION, clusters=clusters, epochs=bench.epochs["cluster"], augment=AUGMENT
    )
    folder = bench.work / f"clustered_{clusters}_{start['keras'].artifact.digest[:6]}"
    return _files(weights.run(settings, _inputs(bench, start), context(folder, SEED)))


def clustered_by_tfmot(bench: Bench, start: Mapping[str, InputFile], clusters: int) -> Mapping[str, InputFile]:
    """tfmot's clustering of the same layers, trained by the same loop with the same settings."""
    import tensorflow_model_optimization as tfmot

    from edgemill.cluster.select import choose
    from edgemill.ingest.export import keras_to_onnx, save_keras
    from edgemill.tf import fresh, keras
    from edgemill.train.loop import Objective, train
    from edgemill.train.teacher import Teacher

    fresh(SEED)
    model = keras.models.load_model(start["keras"].path, compile=False)
    chosen = {id(choice.layer) for choice in choose(model) if choice.reason is None}
    start_at = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS

    def wrapped(layer: Any) -> Any:
        if id(layer) not in chosen:
            return layer
        return tfmot.clustering.keras.cluster_weights(layer, clusters, cluster_centroids_init=start_at)

    model = keras.models.clone_model(model, clone_function=wrapped)
    settings = ClusterSettings(task=Task.CLASSIFICATION, epochs=bench.epochs["cluster"], augment=AUGMENT)
    objective = Objective(settings.task, Teacher(bench.teacher.path), settings.temperature, settings.soft_weight)
    around = context(bench.work / "tfmot", SEED)
    train(model, Dataset(bench.data.path), settings, objective, around)
    plain = tfmot.clustering.keras.strip_clustering(model)
    save_keras(plain, around.out / "model.keras")
    keras_to_onnx(plain, around.out / "model.onnx")
    return {kind: input_file(around.out / f"model.{kind}", kind) for kind in ("keras", "onnx")}


def by_ptq(bench: Bench, name: str, model: Mapping[str, InputFile]) -> tuple[Path, Path]:
    """LiteRT and ONNX file by post-training quantization."""
    from edgemill.quantize import litert, static

    arithmetic = load_target("x86-64-vnni").int8
    folder = bench.work / f"ptq {name}"
    lite = litert.run(
        LitertSettings(scheme=LitertScheme.INT8_STATIC),
        {"keras": model["keras"], "data": bench.data},
        context(folder / "litert", SEED, quiet=True),
    )
    ort = static.run(
        StaticSettings(int8=arithmetic),
        {"onnx": model["onnx"], "data": bench.data},
        context(folder / "ort", SEED, quiet=True),
    )
    return lite.files["tflite"].path, ort.files["onnx"].path


def by_qat(bench: Bench, name: str, model: Mapping[str, InputFile]) -> tuple[Path, Path]:
    """LiteRT and ONNX file by training under quantization."""
    from edgemill.quantize import qat

    training = Qat(epochs=bench.epochs["qat"], learning_rate=1e-4, augment=AUGMENT)
    made = qat.run(QatSettings(training=training), _inputs(bench, model), context(bench.work / f"qat {name}", SEED))
    return made.files["tflite"].path, made.files["onnx_uint8"].path


def judged(bench: Bench, lite: Path, ort: Path) -> dict[str, Any]:
    """What the two files hold and how they answer."""
    from edgemill.cluster.verify import int8_weights

    data = Dataset(bench.data.path)
    x, labels = data.features(SplitName.TEST), data.labels(SplitName.TEST)
    right = {
        path: float((open_model(path, kind, 1).predict(x).argmax(axis=1) == labels).mean())
        for path, kind in ((lite, "tflite"), (ort, "onnx"))
    }
    kernels = {path: [w for w in int8_weights(path).values() if w.size >= SMALLEST] for path in (lite, ort)}
    return {
        "accuracy": right[lite],
        "accuracy_ort": right[ort],
        "test_samples": len(labels),
        "zeros": min(sum(int((w == 0).sum()) for w in held) / sum(w.size for w in held) for held in kernels.values()),
        "distinct_bytes": max(len(np.unique(w)) for held in kernels.values() for w in held),
        "bytes_litert": sizes(lite)["size_bytes"],
        "gzip_litert": sizes(lite)["compressed_bytes"],
        "bytes_ort": sizes(ort)["size_bytes"],
        "gzip_ort": sizes(ort)["compressed_bytes"],
    }


def _inputs(bench: Bench, model: Mapping[str, InputFile]) -> dict[str, InputFile]:
    return {"keras": model["keras"], "teacher": bench.teacher, "data": bench.data}


def _files(outputs: Any) -> dict[str, InputFile]:
    return {name: input_file(file.path, file.kind) for name, file in outputs.files.items()}


if __name__ == "__main__":
    sys.exit(main())
