"""Do times of single layers add up to the time of a model, and which channel counts do the kernels like?

1. For W1's checkpoint and for the same graph at half the width (untrained): int8 files of both runtimes are
   timed as a whole and held against the sum over their layers in the latency table that was measured for the
   checkpoint's geometries. What the table leaves out (additions, pooling, softmax) is part of the error.
2. Output and input channels of a 3x3 and a 1x1 convolution in steps of 1: the multiple of channels that a kernel
   likes is the largest to which counts can be rounded up so that layers take, on average, at most 3 % of the
   unrounded time longer than with the best multiple. Where rounding up saves time, `rounding` is negative.

python -m benchmarks.layer_latency [--quick] [--json FILE] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Claim, arguments, context, finish, input_file
from benchmarks.w1 import w1_data
from edgemill.benchmark.cores import pinned
from edgemill.channels import latency_measure
from edgemill.channels.cost import LatencyCost, LayerShape
from edgemill.channels.geometry import layer_shapes
from edgemill.channels.latency_steps import (
    LayerLatencySettings,
    RuntimeName,
    channels_multiple,
    measuring_plan,
)
from edgemill.channels.latency_table import LatencyTable
from edgemill.data.dataset import SplitName
from edgemill.distill.narrow import narrow
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.quantize import LitertScheme, LitertSettings, StaticSettings, litert, static
from edgemill.runtimes import open_model
from edgemill.step import InputFile
from edgemill.targets import load_target
from edgemill.tf import fresh, keras

_ROOT = Path(__file__).resolve().parent.parent
_CHECKPOINT = _ROOT / "examples" / "fashion_mnist" / "fashion_teacher.keras"
_TARGETS: dict[RuntimeName, str] = {"ai-edge-litert": "android-arm64", "onnxruntime": "x86-64-vnni"}
_SWEPT = {
    "3x3, 14x14 map": LayerShape("conv", 32, 32, (3, 3), height=14, width=14),
    "1x1, 14x14 map": LayerShape("conv", 64, 32, height=14, width=14),
}
_CANDIDATES = (1, 2, 4, 8, 16, 32)
_FREE = 0.03
_ERROR, _RATIO_ERROR, _SECONDS = 0.25, 0.2, 100.0
_REPEATS = 5


def main() -> int:
    """Run everything and print it."""
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FASHION_MNIST_DIR", "")), metavar="FOLDER")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        rows += _whole_models(work, options)
    rows += _steps(24 if options.quick else 64)
    columns = [
        "what",
        "runtime",
        "measured_us",
        "table_us",
        "error",
        "multiple",
        "rounding",
        "documented",
        "seconds",
        "points",
    ]
    return finish(rows, columns, _claims(rows), options.json, ("ai-edge-litert", "onnxruntime", "tensorflow"))


def _whole_models(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    data = w1_data(work, options.data, {SplitName.TRAIN: 100, SplitName.VALIDATION: 100, SplitName.TEST: 100})
    fresh(7)
    teacher = keras.models.load_model(_CHECKPOINT, compile=False)
    models = {"W1": teacher, "W1 half width": narrow(teacher, 0.5)}
    if options.quick:
        del models["W1"]
    grids = measuring_plan(layer.shape for layer in layer_shapes(teacher))
    rows = []
    for runtime, target in _TARGETS.items():
        arithmetic = load_target(target).int8
        files = {
            name: _int8(model, runtime, work / f"{target}-{index}", data)
            for index, (name, model) in enumerate(models.items())
        }
        settings = LayerLatencySettings(runtime=runtime, int8=arithmetic, layers=grids)
        around = context(work / f"{target}-table", 7, quiet=True)
        # Another load on the machine would meet the table and the models alike.
        begun = _medians(files, data)
        started = time.monotonic()
        made = latency_measure.run(settings, {}, around)
        seconds = time.monotonic() - started
        table = LatencyTable.read(made.files["table"].path)
        ended = _medians(files, data)
        rows.append({**made.facts, "what": "table", "runtime": runtime, "seconds": seconds})
        for name, model in models.items():
            cost = LatencyCost(table)
            layers = {layer.name: cost.layer(layer.shape) for layer in layer_shapes(model)}
            measured = min(begun[name], ended[name])
            predicted = sum(layers.values()) + table.call_us
            rows.append(
                {
                    "what": name,
                    "runtime": runtime,
                    "measured_us": measured,
                    "table_us": predicted,
                    "error": predicted / measured - 1,
                    "layers_us": layers,
                }
            )
    return rows


def _int8(model: Any, runtime: RuntimeName, folder: Path, data: InputFile) -> Path:
    folder.mkdir()
    if runtime == "ai-edge-litert":
        save_keras(model, folder / "model.keras")
        inputs = {"keras": input_file(folder / "model.keras", "keras"), "data": data}
        made = litert.run(
            LitertSettings(scheme=LitertScheme.INT8_STATIC), inputs, context(folder / "int8", 7, quiet=True)
        )
        return made.files["tflite"].path
    keras_to_onnx(model, folder / "model.onnx")
    inputs = {"onnx": input_file(folder / "model.onnx", "onnx"), "data": data}
    settings = StaticSettings(int8=load_target(_TARGETS[runtime]).int8)
    return static.run(settings, inputs, context(folder / "int8", 7, quiet=True)).files["onnx"].path


def _medians(files: dict[str, Path], data: InputFile) -> dict[str, float]:
    """Microseconds of a call of each file, by the way in which the table is measured."""
    x = np.zeros((1, 28, 28, 1), np.float32)
    calls = []
    for path in files.values():
        model: Any = open_model(path, path.suffix[1:], 1)
        if path.suffix == ".tflite":
            model.prepare(x)()
            calls.append(model.interpreter.invoke)
        else:
            calls.append(_bound(model, x))
    with pinned(1):
        best = np.min([latency_measure.timed(calls) for _ in range(_REPEATS)], axis=0)
    return dict(zip(files, map(float, best), strict=True))


def _bound(model: Any, x: Any) -> Any:
    return latency_measure.bound_call(model.session, {model.session.get_inputs()[0].name: x})


def _steps(largest: int) -> list[dict[str, Any]]:
    rows = []
    for runtime, target in _TARGETS.items():
        settings = LayerLatencySettings(runtime=runtime, int8=load_target(target).int8, layers=())
        for name, shape in _SWEPT.items():
            for axis in ("outputs", "inputs"):
                counts = list(range(1, largest + 1))
                shapes = [
                    shape.with_channels(shape.inputs, n) if axis == "outputs" else shape.with_channels(n, shape.outputs)
                    for n in counts
                ]
                with pinned(1):
                    calls = [latency_measure.prepare_layer(item, settings) for item in shapes]
                    us = np.min([latency_measure.timed(calls) for _ in range(_REPEATS)], axis=0)
                multiple, extra = _liked(us.tolist())
                rows.append(
                    {
                        "what": f"{axis} of {name}",
                        "runtime": runtime,
                        "us": np.round(us, 3).tolist(),
                        "extra": extra,
                        "multiple": multiple,
                        "rounding": extra[str(multiple)],
                        "documented": channels_multiple(runtime) if axis == "outputs" else None,
                    }
                )
    return rows


def _liked(us: list[float]) -> tuple[int, dict[str, float]]:
    """The largest multiple that is as good as the best one, and what rounding up to each costs (mean share)."""
    times = np.array(us)
    counts = np.arange(1, len(us) + 1)
    extra = {}
    for multiple in _CANDIDATES:
        rounded = -(-counts // multiple) * multiple
        held = rounded <= len(us)
        if held.sum() >= multiple:
            extra[multiple] = float(np.mean(times[rounded[held] - 1] / times[held] - 1))
    best = min(extra.values())
    liked = max(multiple for multiple, cost in extra.items() if cost <= best + _FREE)
    return liked, {str(multiple): cost for multiple, cost in extra.items()}


def _claims(rows: list[dict[str, Any]]) -> list[Claim]:
    claims = []
    for runtime in _TARGETS:
        own = [row for row in rows if row["runtime"] == runtime]
        claims.append(
            Claim(f"{runtime}_table_s", max(row["seconds"] for row in own if "seconds" in row), "<=", _SECONDS)
        )
        models = [row for row in own if "error" in row]
        claims.append(Claim(f"{runtime}_error", max(abs(row["error"]) for row in models), "<=", _ERROR))
        if len(models) == 2:
            measured, predicted = (models[1][key] / models[0][key] for key in ("measured_us", "table_us"))
            claims.append(Claim(f"{runtime}_ratio_error", abs(predicted / measured - 1), "<=", _RATIO_ERROR))
        liked = [row["multiple"] for row in own if row.get("documented")]
        claims.append(Claim(f"{runtime}_multiple", float(min(liked)), ">=", channels_multiple(runtime)))
    return claims


if __name__ == "__main__":
    sys.exit(main())
