"""Edgemill next to its peers on workload W1 (Fashion-MNIST, 684 k parameters).

Every peer works in its own locked environment on the same checkpoint and splits; its models and Edgemill's are
judged alike: the exact paired test on the test split at margins 0.005 and 0.01, bytes after gzip -9 of all files
that a model needs, and latency of one thread at batch 1, all models interleaved in one process, as a ratio to the
fp32 ONNX in onnxruntime. A peer that does not install or does not run is a row with the reason.

Edgemill's models come from an output folder of `edgemill optimize` (--edgemill); without one the recipe with the
search is run first, which takes up to an hour. --quick asks only the peers that need seconds, judges 2,000 test
images, on which few models can PASS, and so holds latency against models that do not FAIL; without --edgemill and
without a finished run it compares the peers alone.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Claim, arguments, finish
from benchmarks.peers.claims import claims, stretch
from benchmarks.peers.contenders import PEERS, Made, make
from benchmarks.peers.document import markdown
from benchmarks.peers.environments import ROOT, WORK, InstallError, ensure
from benchmarks.peers.judge import CONFIDENCE, judge
from benchmarks.peers.ours import SUMMARY, optimize, variants
from benchmarks.peers.picture import draw
from benchmarks.peers.workload import Workload, prepare
from edgemill.benchmark.host import fingerprint
from edgemill.errors import EdgemillError

CHECKPOINT = ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
RECIPE = ROOT / "examples" / "fashion_mnist" / "search.yaml"
OPTIMIZED = ROOT / "build" / "w1"
DATA_FOLDER = "/usr/share/datasets/fashion-mnist"
TOOLS = ("onnx", "onnxruntime", "ai-edge-litert", "tensorflow", "numpy", "scipy")
QUICK_TEST_SAMPLES = 2000
ROUNDS, QUICK_ROUNDS = 150, 40
RUNS = 20
COLUMNS = (
    "model",
    "runtime",
    "accuracy",
    "drop_upper",
    "verdict_005",
    "verdict_01",
    "bytes",
    "compressed_bytes",
    "compressed_ratio",
    "latency_ratio",
    "p95_ratio",
    "p50_us",
    "failure",
)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--edgemill", type=Path, metavar="FOLDER", help="output folder of `edgemill optimize`")
    parser.add_argument("--peers-only", action="store_true", help="without Edgemill, and without claims about it")
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE", help="judge this model too")
    parser.add_argument("--only", action="append", default=[], metavar="PEER", help="only these peers, e.g. nncf")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the environments and the peers' models")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", DATA_FOLDER)))
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="of peers.md and peers.svg; default: that of --json"
    )
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"no Fashion-MNIST at {options.data}; set FASHION_MNIST_DIR")
    if unknown := set(options.only) - {peer.name for peer in PEERS}:
        parser.error(f"--only {', '.join(sorted(unknown))}: the peers are {', '.join(peer.name for peer in PEERS)}")
    try:
        extra = _extra(options.model)
        models = _edgemill(options)
    except (ValueError, RuntimeError, EdgemillError) as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as temporary:
        work = Path(temporary)
        workload = prepare(work, CHECKPOINT, options.data, QUICK_TEST_SAMPLES if options.quick else None)
        made = _peers(options, workload)
        verdicts = work / "judged"
        verdicts.mkdir()
        rounds = QUICK_ROUNDS if options.quick else ROUNDS
        rows = judge(verdicts, workload, [*made, *models, *extra], rounds, RUNS)
    found = claims(rows, options.quick, alone=options.peers_only or (options.quick and not models))
    if folder := options.results or (options.json.parent if options.json else None):
        _write(folder, rows, found, options.quick)
    status = finish(rows, COLUMNS, found, options.json, TOOLS)
    for line in stretch(rows, options.quick):
        print(line)
    return status


def _edgemill(options: argparse.Namespace) -> list[Made]:
    """Edgemill's gated variants; without --edgemill those of the recipe with the search."""
    if options.peers_only:
        return []
    if options.edgemill:
        return variants(options.edgemill, CHECKPOINT)
    if options.quick:
        return variants(OPTIMIZED, CHECKPOINT) if (OPTIMIZED / SUMMARY).is_file() else []
    if not RECIPE.is_file():
        raise ValueError(f"{RECIPE} is missing; give an output folder with --edgemill, or --peers-only")
    # What a run before finished is in the store.
    optimize(RECIPE, OPTIMIZED)
    return variants(OPTIMIZED, CHECKPOINT)


def _extra(given: list[str]) -> list[Made]:
    """Models of --model NAME=FILE.

    Raises:
        ValueError: no name or one that is taken, or no model file.
    """
    found: list[Made] = []
    for text in given:
        name, _, file = text.partition("=")
        path = Path(file)
        if not name or path.suffix not in (".onnx", ".tflite") or not path.is_file():
            raise ValueError(f"--model {text}: expected NAME=FILE with an .onnx or .tflite file")
        if name in {made.name for made in found} or "/" in name:
            raise ValueError(f"--model {text}: names are different, and without a slash")
        data = sorted(path.parent.glob(f"{path.name}?data"))  # model.onnx.data, model.onnx_data
        found.append(Made(name, "extra", "given by --model", (path, *data)))
    return found


def _peers(options: argparse.Namespace, workload: Workload) -> list[Made]:
    """What the peers make of the checkpoint; a peer without an environment is one entry with the reason."""
    made: list[Made] = []
    for peer in PEERS:
        settings = [setting for setting in peer.settings if setting.quick or not options.quick]
        if not settings or (options.only and peer.name not in options.only):
            continue
        try:
            environment = ensure(peer.name, options.work)
        except InstallError as error:
            print(f"{peer.title}: {error}", flush=True)
            made.append(Made(peer.name, "peer", peer.title, failure=f"its environment failed: {error}"))
            continue
        print(f"{peer.title}: {environment.megabytes:.0f} MB, installed in {environment.seconds:.0f} s", flush=True)
        for setting in settings:
            out = options.work / "models" / peer.name / setting.name
            result = make(peer, setting, environment, workload.inputs, out)
            print(f"  {setting.name}: {result.failure or f'{result.seconds} s'}", flush=True)
            made.append(result)
    return made


def _write(folder: Path, rows: list[dict[str, Any]], found: list[Claim], quick: bool) -> None:
    """Table and picture for people."""
    n = next(row["n"] for row in rows)
    measured = [row for row in rows if "latency_ratio" in row]
    host = fingerprint()
    facts = [
        f"{n:,} test images{' of 10,000 (--quick)' if quick else ''}; exact paired one-sided test against the "
        f"checkpoint, {CONFIDENCE:.0%}, each model on its own",
        f"one thread, batch 1, {len(measured)} models interleaved in one process, "
        f"{len(measured[0]['round_p50_ns'])} rounds of {RUNS} inferences; "
        "ratios to the fp32 ONNX in onnxruntime of the same round",
        f"gzip -9 of all files that a model needs; {host['cpu']}",
        *stretch(rows, quick),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    draw(rows, "verdict_005", f"W1: {len(measured)} models, colour: verdict at margin 0.005", folder / "peers.svg")
    (folder / "peers.md").write_text(markdown(rows, found, facts, "peers.svg"), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
