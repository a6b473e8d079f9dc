"""The arithmetic of three CPUs on workload W1 (Fashion-MNIST, 684 k parameters): what 8-bit forms answer on them.

Forms, all quantized by Edgemill from the same checkpoint and ranges: uint8 x int8 a channel (u8s8), the same with
7-bit weights (u8s8_reduce_range), uint8 x uint8 (u8u8), int8 x int8 (s8s8). CPUs: this host where it has VNNI,
AVX2 without VNNI (qemu-x86_64 -cpu Haswell), ARM64 (qemu-aarch64 and a sysroot, see `edgemill sysroot`).

Shows how far every form is from exact arithmetic on every CPU, which form Edgemill picks for which CPU, and that
the picked one passes the gate there. Emulated runs give numbers of the model, never times of a device.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Claim, arguments, context, finish, input_file
from benchmarks.qat_onnx import CHECKPOINTS, DATA_FOLDER, SEED
from benchmarks.w1 import w1_data
from edgemill.compile import CompileSettings
from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate.answering import open_on
from edgemill.emulate.cure import Cure, Treatment, cures, evidence, treat
from edgemill.emulate.machine import Machine, how_executed, reference
from edgemill.emulate.sysroot import build_sysroot
from edgemill.quantize import StaticSettings
from edgemill.recipe import Budget, Checkpoint, Scheme, Task
from edgemill.step import InputFile
from edgemill.targets import Target, load_target
from edgemill.targets.spec import ActivationType, Int8Arithmetic, WeightType
from edgemill.validate import GateFacts, GateSettings
from edgemill.validate.divergence import Divergence, DivergenceSettings, render
from edgemill.validate.divergence_measure import measure

TARGETS = ("x86-64-vnni", "x86-64-avx2", "raspberry-pi-5")
FORMS = {
    "u8s8": Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False),
    "u8s8_reduce_range": Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=True),
    "u8u8": Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False, weights=WeightType.UINT8),
    "s8s8": Int8Arithmetic(activations=ActivationType.INT8, reduce_range=False),
}
FORM_OF = {Cure.NONE: "u8s8", Cure.REDUCE_RANGE: "u8s8_reduce_range", Cure.UINT8_WEIGHTS: "u8u8"}
BUDGET = Budget(max_accuracy_drop=0.005, confidence=0.95)
PROBE = 256
CELL = 2000
QUICK_TEST, QUICK_CELL, QUICK_PROBE = 2500, 150, 48
TOOLS = ("onnx", "onnxruntime", "numpy")
COLUMNS = (
    "target",
    "form",
    "source",
    "samples",
    "accuracy",
    "max_abs",
    "equal_rows",
    "agreement",
    "first_layer",
    "picked",
    "verdict",
)


@dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        files: compiled model by form, and `fp32`.
        data: dataset; its test split is what is answered.
        cell: samples of a form that Edgemill did not try for the target; what it tried answers all.
        probe: validation samples of a divergence probe.
        work: scratch folder.
    """

    files: dict[str, InputFile]
    data: InputFile
    cell: int
    probe: int
    work: Path


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, help="default: the one in examples/fashion_mnist")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument("--images", type=int, help="test images; default: all 10,000")
    options = parser.parse_args()
    checkpoint = options.checkpoint or next((path for path in CHECKPOINTS if path.exists()), None)
    if checkpoint is None or not checkpoint.exists():
        parser.error(f"no checkpoint at {checkpoint or CHECKPOINTS[0]}; give one with --checkpoint")
    if not options.data.is_dir():
        parser.error(f"no Fashion-MNIST at {options.data}; set FASHION_MNIST_DIR")
    build_sysroot("aarch64", lambda fraction, message: print(f"  sysroot: {message}", flush=True))
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        rows = measure_all(Path(folder), checkpoint, options.data, options.images, options.quick)
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    cell = {(row["target"], row["form"]): row for row in rows}
    picked = [row for row in rows if row["picked"]]
    x86, avx2, arm = TARGETS
    cured = next(row for row in picked if row["target"] == avx2)
    return [
        Claim("u8s8_on_avx2_off_by", cell[avx2, "u8s8"]["max_abs"], ">=", 0.5),
        Claim("u8s8_on_avx2_equal_rows", cell[avx2, "u8s8"]["equal_rows"], "<=", 0.5),
        Claim("u8s8_on_avx2_was_not_picked", float(cured["form"] != "u8s8"), ">=", 1),
        Claim("picked_on_avx2_equal_rows", cured["equal_rows"], ">=", 1),
        Claim("u8u8_on_avx2_equal_rows", cell[avx2, "u8u8"]["equal_rows"], ">=", 1),
        Claim("u8s8_on_vnni_equal_rows", cell[x86, "u8s8"]["equal_rows"], ">=", 1),
        Claim("s8s8_on_arm64_equal_rows", cell[arm, "s8s8"]["equal_rows"], ">=", 1),
        Claim(
            "targets_in_their_own_arithmetic", float(sum(row["own_arithmetic"] for row in picked)), ">=", len(TARGETS)
        ),
        Claim("picks_that_pass", float(sum(row["verdict"] == "PASS" for row in picked)), ">=", len(TARGETS)),
    ]


def measure_all(
    work: Path, checkpoint: Path, data_folder: Path, images: int | None, quick: bool
) -> list[dict[str, Any]]:
    """Make all forms, pick one for every target, and answer the test images; a row a form and target."""
    test = images or (QUICK_TEST if quick else None)
    data = w1_data(work, data_folder, None if test is None else {SplitName.TEST: test})
    files = _forms(work, checkpoint, data)
    bench = Bench(files, data, QUICK_CELL if quick else CELL, QUICK_PROBE if quick else PROBE, work)
    x = Dataset(data.path).features(SplitName.TEST)
    print("  exact answers of the host", flush=True)
    exact = {name: open_on(reference(), file.path, "onnx").predict(x) for name, file in files.items()}
    with ThreadPoolExecutor(2) as pool:  # one emulator a CPU; they do not share anything
        parts = pool.map(lambda name: _rows(load_target(name), bench, x, exact), TARGETS)
        return [row for part in parts for row in part]


def _rows(
    target: Target, bench: Bench, x: NDArray[np.float32], exact: dict[str, NDArray[np.float32]]
) -> list[dict[str, Any]]:
    machine = how_executed(target)
    probes: dict[str, Divergence] = {}

    def probe(form: str) -> Divergence:
        if form not in probes:
            print(f"  {target.name}: comparing {form}", flush=True)
            probes[form] = _diverge(bench, form, machine, f"{target.name}-{form}")
        return probes[form]

    treatment = _pick(target, machine, probe)
    print(f"  {target.name}: picked {treatment.made}\n{_indented(render(probe(treatment.made)))}", flush=True)
    tried, rows = set(probes), []
    for form in FORMS:
        chosen = treatment if form == treatment.made else None
        rows.append(_row(target, machine, form, bench, x, exact, probe(form), chosen, form in tried))
        print(f"  {target.name}: {form} answered {rows[-1]['samples']} images", flush=True)
    return rows


def _pick(target: Target, machine: Machine, probe: Callable[[str], Divergence]) -> Treatment[str]:
    settings = StaticSettings(int8=target.int8)
    signed = target.int8.activations is ActivationType.INT8
    return treat(cures(target, settings), machine, make=lambda cure: "s8s8" if signed else FORM_OF[cure], probe=probe)


def _row(
    target: Target,
    machine: Machine,
    form: str,
    bench: Bench,
    x: NDArray[np.float32],
    exact: dict[str, NDArray[np.float32]],
    probe: Divergence,
    treatment: Treatment[str] | None,
    tried: bool,
) -> dict[str, Any]:
    path, labels = bench.files[form].path, Dataset(bench.data.path).labels(SplitName.TEST)
    samples = len(x) if tried else min(bench.cell, len(x))
    began = time.monotonic()
    answers = open_on(machine, path, "onnx").predict(x[:samples])
    seconds = time.monotonic() - began
    difference = measure(exact[form][:samples], answers, str(path))
    verdict = None
    if samples == len(x):
        verdict = _gate(bench, exact["fp32"], answers, f"gate-{target.name}-{form}").verdict
    return {
        "target": target.name,
        "form": form,
        "source": machine.source,
        "machine": machine.identity,
        "own_arithmetic": machine.is_targets_own,
        "samples": samples,
        "accuracy": float((answers.argmax(1) == labels[:samples]).mean()),
        "fp32_accuracy": float((exact["fp32"][:samples].argmax(1) == labels[:samples]).mean()),
        **difference.model_dump(mode="json"),
        "first_layer": None
        if probe.first is None
        else f"{probe.first.operator} {probe.first.index + 1}/{probe.traced}",
        "probe": probe.model_dump(mode="json"),
        "picked": treatment is not None,
        "arithmetic": None if treatment is None else evidence(machine, treatment).model_dump(mode="json"),
        "verdict": None if verdict is None else str(verdict.verdict),
        "gate": None if verdict is None else verdict.model_dump(mode="json"),
        "answering_s": round(seconds, 1),
    }


def _diverge(bench: Bench, form: str, machine: Machine, name: str) -> Divergence:
    from edgemill.validate import divergence_step

    settings = DivergenceSettings(machine=machine, samples=bench.probe, traced=4)
    inputs = {"model": bench.files[form], "data": bench.data}
    found = divergence_step.run(settings, inputs, context(bench.work / f"divergence-{name}", SEED, quiet=True))
    return Divergence.model_validate(found.facts)


def _gate(bench: Bench, baseline: NDArray[np.float32], answers: NDArray[np.float32], name: str) -> GateFacts:
    from edgemill.validate import gate

    place = context(bench.work / name, SEED, quiet=True)
    files = {}
    for title, values in (("baseline", baseline), ("variant", answers)):
        path = place.resume / f"{title}.npy"
        np.save(path, values)
        files[title] = input_file(path, "predictions")
    settings = GateSettings(task=Task.CLASSIFICATION, budget=BUDGET)
    return GateFacts.model_validate(gate.run(settings, files | {"data": bench.data}, place).facts)


def _forms(work: Path, checkpoint: Path, data: InputFile) -> dict[str, InputFile]:
    from edgemill.compile import onnxruntime as compiler
    from edgemill.ingest import checkpoint as ingest
    from edgemill.quantize import static

    source = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), source, context(work / "ingest", SEED, quiet=True)).files
    fp32 = input_file(base["onnx"].path, "onnx")
    files = {"fp32": fp32}
    for form, int8 in FORMS.items():
        place = context(work / f"quantize-{form}", SEED, quiet=True)
        made = static.run(StaticSettings(int8=int8), {"onnx": fp32, "data": data}, place).files["onnx"]
        signed = int8.activations is ActivationType.INT8
        settings = CompileSettings(target=load_target(TARGETS[2] if signed else TARGETS[1]), scheme=Scheme.INT8_STATIC)
        inputs = {"model": input_file(made.path, "onnx"), "data": data}
        compiled = compiler.run(settings, inputs, context(work / f"compile-{form}", SEED, quiet=True))
        files[form] = input_file(compiled.files["model"].path, "onnx")
    return files


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
