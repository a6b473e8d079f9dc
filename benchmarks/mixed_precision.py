"""Mixed precision on a checkpoint that plain int8 breaks: Edgemill, and NNCF's accuracy control beside it.

A depthwise-separable network is trained on Fashion-MNIST; then the channels between two layers are rescaled at
some places (factors 1/30..30, undone by the layer that reads them), as depthwise networks come out of
training (Nagel et al., ICCV 2019, section 3.1). The float network computes the same. The residual network of
workload W1 is treated alike. Both tools see the same 300 calibration and 3,000 validation samples; the judge
is Edgemill's gate on the 10,000 test samples.

A second row of ours equalizes the channels first (`stages.quantize.repair`), which cures this disease at its
root; mixed precision then has nothing left to do.

NNCF stops at a drop of the observed accuracy within the margin, Edgemill at a proof that the true drop is.
NNCF runs in the locked environment `nncf` of `benchmarks.peers`, or with the interpreter given by --nncf.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.bad_channels import make_bad_channels
from benchmarks.common import Claim, arguments, context, finish, input_file, interleaved, ratio
from edgemill.artifact import size_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import QualityGateError
from edgemill.quantize import MixedSettings, StaticSettings
from edgemill.quantize.kernels import optimized_kernels
from edgemill.recipe import Budget, Repair, Task
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from edgemill.validate import GateFacts, GateSettings, PredictSettings

ROOT = Path(__file__).resolve().parent.parent
FACTOR = 30.0
CHECKPOINTS = (
    ("depthwise, 2 layers", (1, 5)),
    ("depthwise, 4 layers", (1, 3, 5, 7)),
    ("depthwise, all layers", tuple(range(9))),
    ("residual, 2 layers", (0, 1)),
)
"""What is rescaled: places of `pairs`; the odd ones of the depthwise network are behind a depthwise layer."""
HOPELESS = "depthwise, all layers"
"""Where every operator is broken, so that mixed precision has to say that it cannot help."""
TEACHER = ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
OURS: dict[str, tuple[Repair, ...]] = {"edgemill": (), "edgemill, equalized": (Repair.EQUALIZATION,)}
"""Our rows, and which repairs come before the search."""
MARGIN = 0.005
SEED = 7
LIMIT_S = 1800.0
TOOLS = ("onnx", "onnxruntime", "numpy", "scipy")
COLUMNS = (
    "checkpoint",
    "model",
    "test_accuracy",
    "drop",
    "drop_upper",
    "verdict",
    "products_int8",
    "products_float",
    "full_evaluations",
    "seconds",
    "bytes",
    "latency_ratio",
    "note",
)
_ORDER = ("fp32", "int8", *OURS, "nncf")
_PRODUCTS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "MatMulNBits"}
_INTEGER_PRODUCTS = {"QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"}
_HOMOGENEOUS = {"Relu", "GlobalAveragePool", "ReduceMean", "Squeeze"}
_SAME = 1e-4


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="keep what is trained here; default: a temporary folder")
    parser.add_argument("--nncf", type=Path, metavar="PYTHON", help="interpreter with NNCF instead of the locked one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as name:
        scratch = Path(name)
        bad = make_bad_channels(options.work or scratch / "trained")
        rows: list[dict[str, Any]] = []
        for index, (title, places) in enumerate(CHECKPOINTS[:1] if options.quick else CHECKPOINTS):
            folder = scratch / str(index)
            folder.mkdir()
            healthy = _teacher(folder) if title.startswith("residual") else bad.healthy_onnx
            rows += measure(folder, title, places, healthy, bad.data, options.nncf, 30 if options.quick else 100)
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    found = []
    for title in dict.fromkeys(row["checkpoint"] for row in rows):
        by_model = {row["model"]: row for row in rows if row["checkpoint"] == title}
        plain, ours, peer = (by_model[name] for name in ("int8", "edgemill", "nncf"))
        cured = by_model["edgemill, equalized"]
        key = title.replace(",", "").replace(" ", "_")
        found += [
            Claim(f"{key}: plain_int8_fails", float(plain["verdict"] == "FAIL"), ">=", 1),
            Claim(f"{key}: edgemill_equalized_passes", float(cured["verdict"] == "PASS"), ">=", 1),
        ]
        if title == HOPELESS:
            found.append(Claim(f"{key}: edgemill_says_so", float(ours["verdict"] is None), ">=", 1))
            continue
        found += [
            Claim(f"{key}: edgemill_passes", float(ours["verdict"] == "PASS"), ">=", 1),
            Claim(f"{key}: edgemill_products_int8", ours.get("products_int8", 0), ">=", 1),
        ]
        if peer["full_evaluations"] is not None:
            evaluations = ours["full_evaluations"] or math.inf
            found.append(Claim(f"{key}: full_evaluations_vs_nncf", evaluations, "<=", peer["full_evaluations"]))
    return found


def measure(
    folder: Path, title: str, places: Collection[int], healthy: Path, samples: Path, nncf: Path | None, rounds: int
) -> list[dict[str, Any]]:
    """Make the models of one checkpoint and judge them; one row a model."""
    from edgemill.quantize import static
    from edgemill.quantize.mixed import step as mixed

    fp32 = folder / "model.onnx"
    rescale(healthy, fp32, places)
    data = input_file(samples, "dataset")
    _check_same(healthy, fp32, Dataset(samples))
    given = {"onnx": input_file(fp32, "onnx"), "data": data}
    arithmetic = load_target("x86-64-vnni").int8
    start = time.monotonic()
    plain = static.run(StaticSettings(int8=arithmetic), given, context(folder / "int8", SEED, quiet=True))
    middle = time.monotonic()
    files = {"fp32": fp32, "int8": plain.files["onnx"].path}
    details: dict[str, dict[str, Any]] = {"int8": {"seconds": middle - start}}
    for name, repair in OURS.items():
        begin = time.monotonic()
        rules = MixedSettings(int8=arithmetic, budget=Budget(max_accuracy_drop=MARGIN), repair=repair)
        try:
            made = mixed.run(rules, given, context(folder / name, SEED, quiet=True))
        except QualityGateError as error:
            details[name] = {"seconds": time.monotonic() - begin, "note": f"refused: {error.what}"}
            continue
        files[name] = made.files["onnx"].path
        details[name] = _numbers(made.facts) | {"seconds": time.monotonic() - begin}
    peer = run_nncf(folder, Dataset(samples), nncf)
    details["nncf"] = peer
    if (folder / "nncf.onnx").exists():
        files["nncf"] = folder / "nncf.onnx"
    rows = _judge(folder, files, details, data.path, rounds)
    for name in details.keys() - files.keys():
        rows.append({"model": name, "full_evaluations": None, "verdict": None} | details[name])
    rows.sort(key=lambda row: _ORDER.index(row["model"]))
    return [{"checkpoint": title} | row for row in rows]


def _numbers(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "full_evaluations": len(facts["evaluations"]),
        "partial_evaluations": facts["glances"] + len(facts["groups"]),
        **{key: facts[key] for key in ("evaluations", "groups", "restored", "reverted")},
    }


def _teacher(folder: Path) -> Path:
    from edgemill.ingest import checkpoint as ingest
    from edgemill.recipe import Checkpoint

    source = {"checkpoint": input_file(TEACHER, "checkpoint")}
    return (
        ingest.run(Checkpoint(path=str(TEACHER)), source, context(folder / "ingest", SEED, quiet=True))
        .files["onnx"]
        .path
    )


def rescale(source: Path, target: Path, places: Collection[int]) -> None:
    """Multiply channels between two products by their own factors and divide what reads them.

    Args:
        source: ONNX with batch normalization folded.
        target: file to write.
        places: which of the products that feed exactly one other one (`pairs`) are rescaled.
    """
    model = onnx.load(str(source))
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    draw = np.random.default_rng(SEED)

    def multiply(name: str, by: Any) -> None:
        changed = (numpy_helper.to_array(held[name]) * by).astype(np.float32)
        held[name].CopyFrom(numpy_helper.from_array(changed, name))

    for place, (maker, reader) in enumerate(pairs(model)):
        width = held[maker.input[1]].dims[0]
        by = np.exp(draw.uniform(-np.log(FACTOR), np.log(FACTOR), width))
        if place not in places:
            continue
        multiply(maker.input[1], by.reshape(-1, 1, 1, 1))
        multiply(maker.input[2], by)
        if reader.op_type != "Conv":
            multiply(reader.input[1], 1 / by[:, None])
        elif any(item.name == "group" and item.i > 1 for item in reader.attribute):
            multiply(reader.input[1], 1 / by.reshape(-1, 1, 1, 1))
        else:
            multiply(reader.input[1], 1 / by.reshape(1, -1, 1, 1))
    onnx.save(model, str(target))


def pairs(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """Convolutions and the only product that reads each, with nothing but ReLU and averaging between them."""
    found = []
    for maker in model.graph.node:
        reader = maker
        while maker.op_type == "Conv":
            readers = [node for node in model.graph.node if reader.output[0] in node.input]
            if len(readers) != 1 or readers[0].op_type not in {*_PRODUCTS, *_HOMOGENEOUS}:
                break
            reader = readers[0]
            if reader.op_type in _PRODUCTS:
                found.append((maker, reader))
                break
    return found


def _check_same(one: Path, other: Path, data: Dataset) -> None:
    x = data.features(SplitName.VALIDATION, 0, 256)
    before, after = (open_model(path, "onnx").predict(x) for path in (one, other))
    difference, largest = float(np.abs(before - after).max()), float(np.abs(before).max())
    if not difference <= _SAME * largest:
        raise SystemExit(f"rescaling changed the answers by {difference:.3g}, logits reach {largest:.3g}")


def run_nncf(folder: Path, data: Dataset, python: Path | None) -> dict[str, Any]:
    """Run NNCF in its own process; what it says, or `note` with why there is nothing."""
    from benchmarks.peers.environments import InstallError, child_environment, ensure

    for split in (SplitName.CALIBRATION, SplitName.VALIDATION):
        np.save(folder / f"{split}_x.npy", data.features(split))
        np.save(folder / f"{split}_y.npy", data.labels(split))
    try:
        interpreter = python or ensure("nncf").python
        script = ROOT / "benchmarks" / "mixed_precision_nncf.py"
        done = subprocess.run(
            [str(interpreter), str(script), str(folder), str(MARGIN)],
            env=child_environment() | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except (InstallError, OSError, subprocess.TimeoutExpired) as error:
        return {"note": f"did not run: {error}"[:300]}
    if done.returncode or not (folder / "nncf.json").exists():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"note": f"failed: {last}"[:300]}
    found: dict[str, Any] = json.loads((folder / "nncf.json").read_text(encoding="utf-8"))
    return found


def _judge(
    folder: Path, files: dict[str, Path], details: dict[str, dict[str, Any]], data: Path, rounds: int
) -> list[dict[str, Any]]:
    from edgemill.validate import gate, predict

    dataset = input_file(data, "dataset")
    answers = {}
    for name, path in files.items():
        made = predict.run(
            PredictSettings(split=SplitName.TEST, task=Task.CLASSIFICATION),
            {"model": input_file(path, "onnx"), "data": dataset},
            context(folder / f"predict-{name}", SEED, quiet=True),
        )
        answers[name] = input_file(made.files["predictions"].path, "predictions")
    rules = GateSettings(task=Task.CLASSIFICATION, budget=Budget(max_accuracy_drop=MARGIN))
    one = Dataset(data).features(SplitName.VALIDATION, 0, 1)
    times = interleaved({name: open_model(path, "onnx").prepare(one) for name, path in files.items()}, rounds)
    rows = []
    for name, path in files.items():
        inputs = {"baseline": answers["fp32"], "variant": answers[name], "data": dataset}
        facts = GateFacts.model_validate(
            gate.run(rules, inputs, context(folder / f"gate-{name}", SEED, quiet=True)).facts
        )
        counts = optimized_kernels(path).counts
        rows.append(
            {
                "model": name,
                "test_accuracy": facts.accuracy,
                "drop": facts.verdict.estimate,
                "drop_upper": facts.verdict.upper,
                "verdict": str(facts.verdict.verdict),
                "products_int8": sum(counts.get(kind, 0) for kind in _INTEGER_PRODUCTS),
                "products_float": sum(counts.get(kind, 0) for kind in _PRODUCTS),
                "full_evaluations": None,
                "bytes": size_of(path),
                "p50_us": float(np.median(times[name])) / 1e3,
                "latency_ratio": ratio(times[name], times["fp32"]),
                "kernels": dict(sorted(counts.items())),
            }
            | details.get(name, {})
        )
    return rows


if __name__ == "__main__":
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    sys.exit(main())
