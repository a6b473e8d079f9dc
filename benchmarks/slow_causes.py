"""Why are these files slow? Six slow files of other tools, each with its cause named and proved by its cure.

The files are int8 variants of the same network (workload W1, Fashion-MNIST, 684 k parameters), made by
other tools with their usual settings. The fp32 checkpoint and all of them are timed in one interleaved
run; `edgemill.benchmark.causes` names a cause for each from onnxruntime's own profile. Then the cause alone
is taken away: the file must run about as fast as the good ones. Good files are the negative controls: no
cause may be named for them.

The kernels, and so the causes, are those of x86 with VNNI: on other CPUs the benchmark refuses to run.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.common import Claim, arguments, context, finish, input_file, interleaved, ratio
from benchmarks.slow_causes_cures import (
    cure,
    int8_weights,
    quantized_sums,
    ranges_from_zero,
    symmetric_weights,
    uint8_activations,
)
from benchmarks.w1 import w1_data
from edgemill.benchmark.causes import explain
from edgemill.benchmark.causes_cause import MINOR_SHARE
from edgemill.benchmark.host import fingerprint
from edgemill.data.dataset import Dataset, SplitName
from edgemill.ingest import checkpoint as ingest
from edgemill.quantize import StaticSettings, static
from edgemill.recipe import Checkpoint
from edgemill.runtimes import open_model
from edgemill.targets import load_target

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
PEERS = ROOT.parent / "shared" / "reference" / "peer_outputs"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
TOOLS = ("onnx", "onnxruntime", "ai-edge-litert", "tensorflow", "tf2onnx", "numpy")
COLUMNS = ("file", "ratio", "expected", "found", "share", "top_operators", "cured_ratio", "same_argmax")
SEED = 7
CURED = 0.5
"""Ratio to fp32 under which a cured file counts as cured; the good files have 0.41 to 0.44."""
SLOW_FROM = 0.7
"""Ratio to fp32 from which a file counts as slow."""
_VNNI = {"avx512_vnni", "avx_vnni"}
_RANGE_SAMPLES = 300


@dataclass(frozen=True)
class Slow:
    """A slow file, and what is true about it.

    Attributes:
        cause: that has to be named first.
        reason: how we know.
        cures: what takes the cause away; none where only quantizing anew does.
        same_values: the cures change no stored value, so the answers differ by rounding at most.
    """

    cause: str
    reason: str
    cures: tuple[Callable[[onnx.ModelProto, NDArray[np.float32]], None], ...] = ()
    same_values: bool = False


SLOW = {
    "ort_dynamic": Slow(
        "conv_integer",
        "onnxruntime quantize_dynamic: every Conv became ConvInteger; its profile shows nine tenths of the time there. "
        "Quantized statically, the same checkpoint is fast.",
    ),
    "ort_s8s8": Slow(
        "signed_activations",
        "int8 activations, int8 weights per channel: onnxruntime turns int8 pairs into uint8 only where one node "
        "reads them (QDQS8ToU8Transformer), so at the residual connections convolutions stay fp32. As uint8, "
        "with the same values, it is fast.",
        (uint8_activations,),
        same_values=True,
    ),
    "olive_default": Slow(
        "signed_activations",
        "Olive's OnnxStaticQuantization default: as ort_s8s8, with one scale per tensor.",
        (uint8_activations,),
        same_values=True,
    ),
    "ort_u8u8": Slow(
        "unsigned_weights",
        "All convolutions are integer, but with uint8 weights (zero point 128); as int8, with the same values, the "
        "same operators take half the time.",
        (int8_weights,),
        same_values=True,
    ),
    "modelopt_int8": Slow(
        "unfused_qdq",
        "Symmetric int8 behind every Relu (zero point 0) keeps the Relu in front of its QuantizeLinear, and sums have "
        "unquantized inputs, so no convolution fuses; their weights are dequantized at every inference. The int8 "
        "type alone is not it: as uint8 with the same values it stays twice as slow as fp32.",
        (uint8_activations, ranges_from_zero, quantized_sums),
    ),
    "tfmot_qat": Slow(
        "unfused_qdq",
        "Ranges from quantization-aware training start below zero behind Relu (zero points 106 to 112), so Relu stays "
        "and four convolutions and three sums compute in fp32. That its weights have no Q/DQ is not it: onnxruntime "
        "quantizes them at load, and with Q/DQ for them alone it stays slow. With ranges from zero it is fast.",
        (ranges_from_zero, symmetric_weights),
    ),
}
NOT_CURED = {"modelopt_int8": (uint8_activations,), "tfmot_qat": (symmetric_weights,)}
"""Changes that a wrong diagnosis would propose; they must not help."""
CONTROLS = ("ort_u8s8.onnx", "nncf_accuracy_control.onnx", "inc_tune.onnx", "aimet_ptq.onnx", "tfmot_qat.tflite")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder with the files of other tools")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    options = parser.parse_args()
    missing = [name for name in (*(f"{name}.onnx" for name in SLOW), *CONTROLS) if not (options.peers / name).exists()]
    if missing:
        parser.error(f"{options.peers} has no {', '.join(missing)}; give the folder with --peers")
    if not options.data.is_dir():
        parser.error(f"no Fashion-MNIST at {options.data}; set FASHION_MNIST_DIR")
    if not _VNNI & set(fingerprint()["flags"]):
        parser.error("this CPU has no VNNI instructions; the expected causes are those of x86 with VNNI")
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        rows = measure(Path(folder), options.peers, options.data, rounds=15 if options.quick else 60)
    status = finish([row | _shown(row) for row in rows], COLUMNS, claims(rows), options.json, TOOLS)
    for row in rows:
        for cause in row["causes"]:
            print(f"\n{row['file']}: {cause['title']}\n  {cause['text']}\n  Remedy: {cause['remedy']}")
    return status


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    found: list[Claim] = []
    for row in rows:
        name, ratio_ = row["file"], row["ratio"]
        if row["role"] == "slow":
            right = float(bool(row["causes"]) and row["causes"][0]["cause"] == row["expected"])
            found += [
                Claim(f"{name}_cause_is_named_first", right, ">=", 1),
                Claim(f"{name}_is_slow", ratio_, ">=", SLOW_FROM),
                Claim(f"{name}_cured_ratio", row["cured_ratio"], "<=", CURED),
            ]
            if row["same_values"]:
                found.append(Claim(f"{name}_same_argmax_when_cured", row["same_argmax"], ">=", 0.99))
        elif row["role"] == "control":
            found += [
                Claim(f"{name}_causes_named", len(row["causes"]), "<=", 0),
                Claim(f"{name}_ratio", ratio_, "<=", CURED),
            ]
        elif row["role"] == "wrong_cure":
            found.append(Claim(f"{name}_stays_slow", ratio_, ">=", SLOW_FROM))
    return found


def measure(work: Path, peers: Path, data_folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Explain and time all files; one row a file."""
    data, fp32, statically = _own_models(work, data_folder)
    one = data.features(SplitName.VALIDATION, 0, 1)
    samples = data.features(SplitName.CALIBRATION, 0, _RANGE_SAMPLES)
    slow = {name: peers / f"{name}.onnx" for name in SLOW}
    cured = {
        name: cure(slow[name], work / f"{name}_cured.onnx", entry.cures, samples) if entry.cures else statically
        for name, entry in SLOW.items()
    }
    wrong = {
        f"{name}_{change.__name__}": cure(slow[name], work / f"{name}_{change.__name__}.onnx", (change,), samples)
        for name, changes in NOT_CURED.items()
        for change in changes
    }
    files = {"fp32": fp32, **slow, **{name: peers / name for name in CONTROLS}, **wrong}
    everything = files | {f"cured {name}": path for name, path in cured.items()}
    models = {name: open_model(path, _kind(path)) for name, path in everything.items()}
    times = interleaved({name: model.prepare(one) for name, model in models.items()}, rounds)
    rows = []
    for name, path in files.items():
        explanation = explain(path, _kind(path), one, fp32)
        row = {
            "file": name,
            "role": _role(name, wrong),
            "ratio": ratio(times[name], times["fp32"]),
            "p50_us": float(np.median(times[name])) / 1e3,
            "times_ns": [[int(value) for value in np.percentile(line, (5, 50, 95))] for line in times[name]],
            **explanation.model_dump(mode="json", exclude={"ratio"}),
            "ratio_beside_profile": explanation.ratio,
        }
        if name in SLOW:
            entry = SLOW[name]
            answers = [models[key].predict(samples) for key in (name, f"cured {name}")]
            row |= {
                "expected": entry.cause,
                "reason": entry.reason,
                "same_values": entry.same_values,
                "cures": [change.__name__ for change in entry.cures] or ["quantize.static from the checkpoint"],
                "cured_ratio": ratio(times[f"cured {name}"], times["fp32"]),
                "cured_p50_us": float(np.median(times[f"cured {name}"])) / 1e3,
                "largest_difference": float(np.abs(answers[0] - answers[1]).max()),
                "same_argmax": float((answers[0].argmax(1) == answers[1].argmax(1)).mean()),
            }
        rows.append(row)
    return rows


def _own_models(work: Path, data_folder: Path) -> tuple[Dataset, Path, Path]:
    """Workload W1's data, the checkpoint as fp32 ONNX, and quantized statically by Edgemill."""
    data = w1_data(work, data_folder)
    inputs = {"checkpoint": input_file(CHECKPOINT, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(CHECKPOINT)), inputs, context(work / "ingest", SEED, quiet=True)).files
    fp32 = input_file(base["onnx"].path, "onnx")
    settings = StaticSettings(int8=load_target("x86-64-vnni").int8)
    ours = static.run(settings, {"onnx": fp32, "data": data}, context(work / "static", SEED, quiet=True))
    return Dataset(data.path), fp32.path, ours.files["onnx"].path


def _kind(path: Path) -> str:
    return "tflite" if path.suffix == ".tflite" else "onnx"


def _role(name: str, wrong: Mapping[str, Path]) -> str:
    if name in SLOW:
        return "slow"
    if name in CONTROLS:
        return "control"
    return "wrong_cure" if name in wrong else "baseline"


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Cells of the printed table."""
    causes = row["causes"]
    top = ", ".join(f"{o['operator'].split('.')[-1]} x {o['count']} {o['us']:.0f} us" for o in row["operators"][:3])
    return {
        "found": causes[0]["cause"] if causes else f"none of {MINOR_SHARE:.0%} or more",
        "share": causes[0]["share_of_time"] if causes else None,
        "top_operators": top,
    }


if __name__ == "__main__":
    sys.exit(main())
