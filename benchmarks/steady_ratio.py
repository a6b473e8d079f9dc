"""The same speed comparison five times under changing load: do the five intervals agree?

One int8 variant (U8S8, static) of workload W1 is measured against its fp32 checkpoint, each time by the
step that the pipeline runs, in a fresh process, while another process keeps a core busy and idle in
turn at random, seeded moments: it spins, multiplies matrices, or copies memory.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.common import Claim, arguments, context, finish, input_file
from benchmarks.w1 import w1_data
from edgemill.benchmark import BenchmarkSettings
from edgemill.quantize import StaticSettings
from edgemill.recipe import Benchmark, Checkpoint
from edgemill.step import InputFile
from edgemill.targets import load_target

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
TARGET = "x86-64-vnni"
SEED = 7
RUNS = 5
PHASE_S = 0.3
TOOLS = ("onnx", "onnxruntime", "numpy")
COLUMNS = (
    "run",
    "ratio",
    "lower",
    "upper",
    "speed",
    "stopped",
    "rounds",
    "rounds_disturbed",
    "sittings",
    "seconds",
    "load_switches",
    "load_share",
    "p50_ms",
    "baseline_p50_ms",
)

LOAD = """
import json, os, sys, time
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
rng = np.random.default_rng(int(sys.argv[1]))
mean = float(sys.argv[2])
matrix = np.ones((256, 256), np.float32)
block = np.zeros(32 << 20, np.uint8)
copy = block.copy()
work = {"spin": lambda: sum(range(10_000)), "multiply": lambda: matrix @ matrix, "copy": lambda: np.copyto(copy, block)}
while True:
    kind = str(rng.choice(["idle", *work]))
    if rng.random() < 0.25:
        kind = "idle"
    until = time.monotonic() + rng.exponential(mean)
    print(json.dumps([time.monotonic(), kind]), flush=True)
    while time.monotonic() < until:
        work[kind]() if kind in work else time.sleep(0.005)
"""


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument("--variant", type=Path, help="measure this ONNX or TFLite file instead")
    options = parser.parse_args()
    for path in (options.checkpoint, options.data, options.variant):
        if path is not None and not path.exists():
            parser.error(f"there is no {path}")
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as folder:
        inputs = prepare(Path(folder), options.checkpoint, options.data, options.variant)
        rows = [
            measure(Path(folder) / f"run{index}", inputs, seed=SEED + index, quick=options.quick) | {"run": index + 1}
            for index in range(RUNS)
        ]
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    pairs = list(itertools.combinations(rows, 2))
    overlapping = sum(a["lower"] <= b["upper"] and b["lower"] <= a["upper"] for a, b in pairs)
    return [
        Claim("pairs_of_intervals_that_overlap", overlapping, ">=", len(pairs)),
        Claim("different_verdicts", len({row["speed"] for row in rows}), "<=", 1),
        Claim("load_switches_in_every_run", min(row["load_switches"] for row in rows), ">=", 3),
    ]


def prepare(work: Path, checkpoint: Path, data_folder: Path, variant: Path | None) -> dict[str, InputFile]:
    """The inputs of the step: fp32 and int8 file, and the data."""
    from edgemill.ingest import checkpoint as ingest
    from edgemill.quantize import static

    data = w1_data(work, data_folder)
    given = {"checkpoint": input_file(checkpoint, "checkpoint"), "data": data}
    base = ingest.run(Checkpoint(path=str(checkpoint)), given, context(work / "ingest", SEED, quiet=True))
    fp32 = input_file(base.files["onnx"].path, "onnx")
    if variant is None:
        settings = StaticSettings(int8=load_target(TARGET).int8)
        made = static.run(settings, {"onnx": fp32, "data": data}, context(work / "int8", SEED, quiet=True))
        variant = made.files["onnx"].path
    return {"variant": input_file(variant, variant.suffix[1:]), "baseline": fp32, "data": data}


def measure(work: Path, inputs: dict[str, InputFile], seed: int, quick: bool) -> dict[str, Any]:
    """One run of the step in a fresh process, beside a load of its own seed."""
    rule = Benchmark(time_budget_s=8.0 if quick else 20.0)
    with changing_load(seed, work.parent / f"{work.name}.load") as phases:
        start = time.monotonic()
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            facts = pool.submit(step, work, inputs, rule, seed).result()
        end = time.monotonic()
    switches, busy = count(phases(), start, end)
    print(f"  {work.name}: {facts['ratio']:.4f} [{facts['ratio_lower']:.4f}, {facts['ratio_upper']:.4f}]", flush=True)
    return {
        "ratio": facts["ratio"],
        "lower": facts["ratio_lower"],
        "upper": facts["ratio_upper"],
        "speed": facts["speed"],
        "p50_ms": facts["latency_p50_ms"],
        "baseline_p50_ms": facts["baseline_p50_ms"],
        "seconds": end - start,
        "load_switches": switches,
        "load_share": busy,
        "seed": seed,
        **{
            name: facts[name]
            for name in (
                "stopped",
                "rounds",
                "rounds_counted",
                "rounds_disturbed",
                "sittings",
                "involuntary_switches",
                "waited_ms",
                "stolen_ms",
                "cold_start_ms",
                "baseline_cold_start_ms",
                "peak_rss_bytes",
                "baseline_peak_rss_bytes",
            )
        },
    }


def step(work: Path, inputs: dict[str, InputFile], rule: Benchmark, seed: int) -> dict[str, Any]:
    """Facts of the step `benchmark.latency`."""
    from edgemill.benchmark import latency

    settings = BenchmarkSettings(benchmark=rule, target=load_target(TARGET))
    return dict(latency.run(settings, inputs, context(work, seed, quiet=True)).facts)


@contextmanager
def changing_load(seed: int, log: Path) -> Iterator[Any]:
    """Run the load; yields a function that gives the phases so far as [moment, kind]."""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", LOAD, str(seed), str(PHASE_S)], stdout=stream, start_new_session=True
        )
        try:
            yield lambda: [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        finally:
            process.kill()
            process.wait()


def count(phases: list[tuple[float, str]], start: float, end: float) -> tuple[int, float]:
    """Changes between busy and idle within a time, and the busy share of it."""
    ends = [moment for moment, _ in phases[1:]] + [end]
    clipped = [
        (max(moment, start), min(until, end), kind != "idle")
        for (moment, kind), until in zip(phases, ends, strict=True)
        if until > start and moment < end
    ]
    switches = sum(before[2] != after[2] for before, after in itertools.pairwise(clipped))
    return switches, sum(until - moment for moment, until, busy in clipped if busy) / (end - start)


if __name__ == "__main__":
    sys.exit(main())
