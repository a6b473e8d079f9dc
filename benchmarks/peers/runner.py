"""What every peer's script shares. Runs in the peer's own environment: only the standard library and numpy.

A script is called as `run_NAME.py SETTING INPUT OUT` and makes one model. INPUT holds

    teacher.onnx                      the checkpoint as fp32 ONNX, float32 (N, 28, 28, 1) in, logits (N, 10) out
    teacher.keras                     the checkpoint itself (Keras 2)
    calibration_x.npy                 float32 (300, 28, 28, 1), preprocessed
    validation_x.npy, validation_y.npy   float32 (5000, 28, 28, 1) and int64 (5000,)
    train_x.npy, train_y.npy          float32 (55000, 28, 28, 1) and int64 (55000,)

and never the test split. OUT gets the model and `result.json`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7


@dataclass(frozen=True)
class Inputs:
    """What a peer may use."""

    folder: Path

    @property
    def teacher(self) -> Path:
        """The checkpoint as fp32 ONNX."""
        return self.folder / "teacher.onnx"

    @property
    def keras(self) -> Path:
        """The checkpoint as Keras left it."""
        return self.folder / "teacher.keras"

    def array(self, name: str) -> Any:
        """One of the arrays, read-only, e.g. `calibration_x`."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    @property
    def input_name(self) -> str:
        """Name of the ONNX model's input."""
        import onnx

        return str(onnx.load(self.teacher).graph.input[0].name)

    def feeds(self, name: str = "calibration_x", batch: int = 1) -> Iterator[dict[str, Any]]:
        """The samples of an array as feeds of onnxruntime, `batch` a time."""
        samples, key = self.array(name), self.input_name
        for start in range(0, len(samples), batch):
            yield {key: np.ascontiguousarray(samples[start : start + batch])}


def run(settings: Mapping[str, Callable[[Inputs, Path], Mapping[str, Any] | None]]) -> None:
    """Make the model of the setting that the command line names.

    Args:
        settings: by name, a function of the inputs and the output folder that writes `model.onnx` or `model.tflite`
            (with what belongs to it, `model.*`) there and returns notes. The peer is imported before: its imports
            are not in the measured seconds.
    """
    if len(sys.argv) != 4 or sys.argv[1] not in settings:
        raise SystemExit(f"usage: {sys.argv[0]} {{{','.join(settings)}}} INPUT OUT")
    name, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    np.random.seed(SEED)
    start = time.monotonic()
    notes = dict(settings[name](Inputs(source), out) or {})
    seconds = time.monotonic() - start
    made = sorted(str(path.relative_to(out)) for path in out.rglob("model.*") if path.is_file())
    result = {
        "setting": name,
        "files": made,
        "seconds": round(seconds, 2),
        "peak_rss_mb": _peak_rss_mb(),
        "notes": notes,
    }
    (out / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


def _peak_rss_mb() -> float:
    # Not getrusage: its figure begins with the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def accuracy(model: Any, inputs: Inputs) -> float:
    """Top-1 of an ONNX model (bytes or a path) on the validation split, single thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    labels, right = inputs.array("validation_y"), 0
    for index, feed in enumerate(inputs.feeds("validation_x", 100)):
        answers = session.run(None, feed)[0].argmax(1)
        right += int((answers == labels[index * 100 : index * 100 + len(answers)]).sum())
    return right / len(labels)
