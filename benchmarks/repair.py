"""PTQ repair on two checkpoints that plain int8 breaks: each repair alone, and all together.

The checkpoints are those of `benchmarks.bad_channels`: a depthwise-separable network, and one of matrix products
between layer normalizations, trained on Fashion-MNIST, whose channels were rescaled without changing a float answer.
Every row is quantized by the step `quantize.static` for x86 (uint8 activations, int8 weights), scored on the 10,000
test images in onnxruntime, and measured against the float graph on the calibration samples (signal-to-noise ratio of
the logits, in dB). A repair that makes that ratio worse is undone; its row then equals that of no repair.

Data: the four IDX files of Fashion-MNIST in the folder FASHION_MNIST_DIR (Debian: dataset-fashion-mnist).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bad_channels import SEPARABLE, TOKENS, BadChannels, make_bad_channels
from benchmarks.common import Claim, arguments, context, finish, input_file
from edgemill.data.dataset import Dataset, SplitName
from edgemill.quantize import StaticSettings, static
from edgemill.recipe import Granularity, Repair
from edgemill.runtimes import open_model
from edgemill.targets.spec import ActivationType, Int8Arithmetic

SEED = 7
EPOCHS, QUICK_EPOCHS = 8, 4
INT8 = Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False)
CHOICES: dict[str, tuple[Repair, ...]] = {
    "none": (),
    **{str(repair): (repair,) for repair in Repair},
    "equalization + smoothquant": (Repair.EQUALIZATION, Repair.SMOOTHQUANT),
    "all but equalization, smoothquant": (Repair.MSE_SCALES, Repair.ADAROUND, Repair.BIAS_CORRECTION),
    "all": tuple(Repair),
}
QUICK_CHOICES = ("none", "cross_layer_equalization", "smoothquant", "bias_correction", "all")
COLUMNS = ("checkpoint", "weights", "repair", "accuracy", "drop", "sqnr_db", "seconds", "kept", "left")
TOOLS = ("onnx", "onnxruntime", "numpy", "tensorflow")


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="folder for the trained checkpoints; they are kept there")
    options = parser.parse_args()
    names = QUICK_CHOICES if options.quick else tuple(CHOICES)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="edgemill-bench-") as name:
        folder = Path(name)
        for kind in (SEPARABLE, TOKENS):
            made = make_bad_channels(
                options.work or folder / "trained", QUICK_EPOCHS if options.quick else EPOCHS, kind=kind
            )
            data = Dataset(made.data)
            floats = accuracy(made.onnx, data)
            for graph, path in (("rescaled", made.onnx), ("as trained", made.healthy_onnx)):
                rows.append({"checkpoint": f"{kind}, {graph}", "weights": "float", "accuracy": accuracy(path, data)})
                for granularity in Granularity:
                    chosen = names if graph == "rescaled" else ("none", "all")
                    for choice in chosen:
                        work = folder / f"{kind}-{graph}-{granularity}-{len(rows)}"
                        row = quantized(made, path, CHOICES[choice], granularity, data, work)
                        print(f"  {kind}, {graph}, {granularity}, {choice}: {row['accuracy']:.4f}", flush=True)
                        rows.append(
                            {
                                "checkpoint": f"{kind}, {graph}",
                                "weights": str(granularity),
                                "repair": choice,
                                "drop": floats - row["accuracy"],
                                **row,
                            }
                        )
    return finish(rows, COLUMNS, claims(rows), options.json, TOOLS)


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """What has to hold, computed from the rows."""
    found = {(row["checkpoint"], row["weights"], row.get("repair")): row for row in rows}
    made = []
    for granularity in Granularity:

        def at(kind: str, repair: str, key: str, weights: str = str(granularity)) -> float:
            value = found[f"{kind}, rescaled", weights, repair][key]
            return float("nan") if value is None else float(value)

        broken = at(SEPARABLE, "none", "drop")
        made += [
            Claim(f"{granularity}_separable_none_drop", broken, ">=", 0.3),
            Claim(f"{granularity}_separable_all_drop", at(SEPARABLE, "all", "drop"), "<=", 0.01),
            Claim(f"{granularity}_tokens_all_drop", at(TOKENS, "all", "drop"), "<=", 0.01),
            Claim(
                f"{granularity}_equalization_gain_db",
                at(SEPARABLE, str(Repair.EQUALIZATION), "sqnr_db") - at(SEPARABLE, "none", "sqnr_db"),
                ">=",
                20,
            ),
            Claim(
                f"{granularity}_smoothquant_gain_db",
                at(TOKENS, str(Repair.SMOOTHQUANT), "sqnr_db") - at(TOKENS, "none", "sqnr_db"),
                ">=",
                3,
            ),
        ]
        gains = [
            row["sqnr_db"] - found[row["checkpoint"], row["weights"], "none"]["sqnr_db"]
            for row in rows
            if row["weights"] == str(granularity)
        ]
        made.append(Claim(f"{granularity}_lowest_gain_db", float(np.min(gains)), ">=", -1e-6))
    return made


def quantized(
    made: BadChannels, path: Path, repairs: tuple[Repair, ...], granularity: Granularity, data: Dataset, work: Path
) -> dict[str, Any]:
    """Quantize a graph with some repairs and measure the result."""
    settings = StaticSettings(int8=INT8, granularity=granularity, repair=repairs)
    start = time.monotonic()
    outputs = static.run(settings, made.inputs() | {"onnx": input_file(path, "onnx")}, context(work, SEED, quiet=True))
    seconds = time.monotonic() - start
    file = outputs.files["onnx"].path
    records = outputs.facts.get("repairs", [])
    return {
        "accuracy": accuracy(file, data),
        "sqnr_db": sqnr(path, file, data),
        "seconds": seconds,
        "kept": ", ".join(str(record["repair"]) for record in records if record["kept"]) or None,
        "left": sum(len(record["left"]) for record in records) if records else None,
        "repairs": [
            {key: value for key, value in record.items() if key not in ("layers", "left")} for record in records
        ],
    }


def sqnr(reference: Path, path: Path, data: Dataset) -> float | None:
    """Signal-to-noise ratio of the logits, as onnxruntime ships them, on the calibration samples, in dB."""
    x = data.features(SplitName.CALIBRATION)
    right, found = (open_model(file, "onnx").predict(x).astype(np.float64) for file in (reference, path))
    noise = float(((right - found) ** 2).sum())
    return float(10 * np.log10((right**2).sum() / noise)) if noise else None


def accuracy(path: Path, data: Dataset) -> float:
    """Share of the test images that are classified right."""
    answers = open_model(path, "onnx").predict(data.features(SplitName.TEST))
    return float((answers.argmax(axis=1) == data.labels(SplitName.TEST)).mean())


if __name__ == "__main__":
    raise SystemExit(main())
