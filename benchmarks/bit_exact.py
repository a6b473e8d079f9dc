"""One int8 graph on many CPUs: where the answers are the same bits, and where one would have to trust.

The checkpoint of workload W1 (Fashion-MNIST, 684 k parameters), quantized by Edgemill without training:

    tflite-micro   the int8 TFLite file in TensorFlow Lite Micro, against LiteRT's reference kernels
    c              C from the int8 ONNX graph, compiled for x86-64, ARM64, RISC-V and Cortex-M4, against x86-64; and
                   that one against onnxruntime on this host
    onnxruntime    the same ONNX graph in onnxruntime for ARM64, against onnxruntime on this host

Other CPUs than this one are emulated (qemu); every row says by what. TFLM and LiteRT round FULLY_CONNECTED
differently since 2026; samples that differ by that alone, which is proven by calculating it, have a column of their
own. Emulated runs give numbers of the model, never times of a device.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Claim, arguments, context, finish, input_file
from benchmarks.qat_onnx import CHECKPOINTS, DATA_FOLDER, ROOT, SEED
from benchmarks.w1 import w1_data
from edgemill.artifact import Artifact
from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate.answering import open_on
from edgemill.emulate.machine import how_executed, reference, target_lacks
from edgemill.execute import Call, execute, release_workers
from edgemill.lack import told
from edgemill.quantize import LitertScheme, LitertSettings, StaticSettings
from edgemill.recipe import Checkpoint, Scheme
from edgemill.store import Store
from edgemill.targets import Target, load_target
from edgemill.targets.capability import blockers
from edgemill.toolchains import installed

C_TARGETS = ("x86-64-c", "arm64-linux-c", "riscv64-linux-c", "cortex-m4-bare-c")
TFLM, ARM = "cortex-m-tflm", "raspberry-pi-5"
ONNXRUNTIME = "onnxruntime, this host"
SAMPLES, QUICK_SAMPLES = 1000, 60
TOOLS = ("onnx", "onnxruntime", "ai-edge-litert", "numpy")
COLUMNS = ("file", "cpu", "against", "source", "samples", "equal", "rounded", "max_difference", "accuracy",
           "flash_bytes", "ram_bytes", "seconds")  # fmt: skip
_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        store: holds all files.
        data: dataset with the samples as its test split.
        models: by kind, onnx and tflite: the same checkpoint in int8.
    """

    store: Store
    data: Artifact
    models: Mapping[str, Artifact]

    @property
    def x(self) -> NDArray[np.float32]:
        """The samples."""
        return Dataset(self.store.path(self.data)).features(SplitName.TEST)

    @property
    def labels(self) -> NDArray[Any]:
        """Their classes."""
        return np.asarray(Dataset(self.store.path(self.data)).labels(SplitName.TEST))


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the one in examples/fashion_mnist")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument("--samples", type=int, help=f"default: {SAMPLES}, with --quick {QUICK_SAMPLES}")
    options = parser.parse_args()
    checkpoint = options.checkpoint or next((path for path in CHECKPOINTS if path.exists()), None)
    if checkpoint is None or not checkpoint.exists():
        parser.error(f"no checkpoint at {checkpoint or CHECKPOINTS[0]}; give one with --checkpoint")
    if not options.data.is_dir():
        parser.error(f"no Fashion-MNIST at {options.data}; set FASHION_MNIST_DIR")
    lacks = [lack for name in (*C_TARGETS, TFLM, ARM) for lack in blockers(load_target(name))]
    if not how_executed(load_target(ARM)).is_targets_own:
        lacks += target_lacks(load_target(ARM))
    if lacks:
        parser.error(told(lacks))
    samples = options.samples or (QUICK_SAMPLES if options.quick else SAMPLES)
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        rows = measure_all(Path(folder), checkpoint, options.data, samples)
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    cell = {row["cpu"]: row for row in rows}
    exact = (*C_TARGETS[1:], ARM)
    tflm, native = cell[TFLM], cell[C_TARGETS[0]]
    return [
        Claim("tflm_equal_or_rounded_otherwise", (tflm["equal"] + tflm["rounded"]) / tflm["samples"], ">=", 1.0),
        Claim("tflm_off_by", tflm["max_difference"], "<=", 1.0),
        *(Claim(f"{name}_equal", cell[name]["equal"] / cell[name]["samples"], ">=", 1.0) for name in exact),
        Claim("c_equals_onnxruntime", native["equal"] / native["samples"], ">=", 0.99),
    ]


def measure_all(work: Path, checkpoint: Path, data_folder: Path, samples: int) -> list[dict[str, Any]]:
    """Quantize, compile for every target, and answer the samples; a row a target."""
    bench = _prepare(work, checkpoint, data_folder, samples)
    arm, onnxruntime_answers = _onnxruntime_row(bench)
    first = C_TARGETS[0]
    host = _program_answers(load_target(first), bench)
    rows = [_tflm_row(bench, work), _row(bench, first, ONNXRUNTIME, onnxruntime_answers, *host)]
    with ThreadPoolExecutor(2) as pool:  # one emulator a CPU; they do not share anything
        others = pool.map(lambda name: _program_answers(load_target(name), bench), C_TARGETS[1:])
        rows += [_row(bench, name, first, host[0], *found) for name, found in zip(C_TARGETS[1:], others, strict=True)]
    release_workers()
    return [*rows, arm]


def _prepare(work: Path, checkpoint: Path, data_folder: Path, samples: int) -> Bench:
    from edgemill.ingest import checkpoint as ingest
    from edgemill.quantize import litert, static

    data = w1_data(work, data_folder, {SplitName.TEST: samples})
    source = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), source, context(work / "ingest", SEED, quiet=True)).files
    settings = StaticSettings(int8=load_target(C_TARGETS[0]).int8)
    inputs = {"onnx": input_file(base["onnx"].path, "onnx"), "data": data}
    graph = static.run(settings, inputs, context(work / "static", SEED, quiet=True)).files["onnx"]
    keras = {"keras": input_file(base["keras"].path, "keras"), "data": data}
    scheme = LitertSettings(scheme=LitertScheme.INT8_STATIC)
    lite = litert.run(scheme, keras, context(work / "litert", SEED, quiet=True)).files["tflite"]
    store = Store(work / "store")
    models = {
        "onnx": store.put(graph.path, kind="onnx", step="quantize.static", signature=graph.signature),
        "tflite": store.put(lite.path, kind="tflite", step="quantize.litert", signature=lite.signature),
    }
    return Bench(store, store.put(data.path, kind="dataset", step="data.load"), models)


def _program_answers(target: Target, bench: Bench) -> tuple[NDArray[np.float32], str, dict[str, Any], float]:
    """Answers of generated C on a target's CPU, all of them there; how; facts of the compile step; seconds."""
    record = _compiled(target, bench, "onnx")
    if target.emulation is not None:
        target = target.model_copy(update={"emulation": target.emulation.model_copy(update={"probe": None})})
    machine = how_executed(target)
    began = time.monotonic()
    answers = open_on(machine, bench.store.path(record.outputs["executable"]), "program").predict(bench.x)
    seconds = time.monotonic() - began
    print(f"  {target.name}: {len(answers)} samples in {seconds:.0f} s, {machine.source}", flush=True)
    return answers, machine.source, dict(record.facts), seconds


def _compiled(target: Target, bench: Bench, kind: str) -> Any:
    print(f"  {target.name}: compiling", flush=True)
    settings = CompileSettings(target=target.essence, scheme=Scheme.INT8_STATIC)
    inputs = {"model": bench.models[kind], "data": bench.data}
    call = Call(backend_of(target).step, settings, inputs, toolchain=target.toolchain)
    return execute(bench.store, call, lambda *_: None).record


def _row(
    bench: Bench,
    name: str,
    against: str,
    expected: NDArray[np.float32],
    answers: NDArray[np.float32],
    source: str,
    facts: Mapping[str, Any],
    seconds: float,
) -> dict[str, Any]:
    rows = len(answers)
    same = (answers.view(np.int32) == expected.view(np.int32)).reshape(rows, -1).all(axis=1)
    device = facts.get("device") or {}
    return {
        "file": "C" if "device" in facts else "onnx",
        "cpu": name,
        "against": against,
        "source": source,
        "samples": rows,
        "equal": int(same.sum()),
        "rounded": 0,
        "max_difference": float(np.abs(answers - expected).max()),
        "accuracy": float((answers.argmax(1) == bench.labels).mean()),
        "flash_bytes": device.get("flash_bytes"),
        "ram_bytes": device.get("ram_bytes"),
        "seconds": round(seconds, 1),
    }


def _onnxruntime_row(bench: Bench) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The row of ARM64, and the answers of this host."""
    target = load_target(ARM)
    record = _compiled(target, bench, "onnx")
    path, machine = bench.store.path(record.outputs["model"]), how_executed(target)
    expected = open_on(reference(), path, "onnx").predict(bench.x)
    began = time.monotonic()
    answers = open_on(machine, path, "onnx").predict(bench.x)
    seconds = time.monotonic() - began
    return _row(bench, ARM, ONNXRUNTIME, expected, answers, machine.source, {}, seconds), expected


def _tflm_row(bench: Bench, work: Path) -> dict[str, Any]:
    target = load_target(TFLM)
    record = _compiled(target, bench, "tflite")
    path, samples = bench.store.path(record.outputs["model"]), work / "samples.npy"
    np.save(samples, bench.x)
    command = [str(installed("tflm").python), "-m", "benchmarks.bit_exact_tflm", str(path), str(samples)]
    began = time.monotonic()
    told = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_LIMIT_S, cwd=ROOT, env=_plain_environment()
    )
    found = json.loads(told.stdout.splitlines()[-1])
    device = record.facts["device"]
    return {
        "file": "tflite",
        "cpu": TFLM,
        "against": "LiteRT reference kernels",
        "source": how_executed(target).source,
        "samples": found["compared"],
        "equal": found["equal"],
        "rounded": found["rounded"],
        "max_difference": float(found["max_difference"]),
        "accuracy": None,
        "flash_bytes": device.get("flash_bytes"),
        "ram_bytes": device.get("ram_bytes"),
        "seconds": round(time.monotonic() - began, 1),
    }


def _plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


if __name__ == "__main__":
    sys.exit(main())
