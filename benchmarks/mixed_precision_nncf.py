"""NNCF's accuracy control on an ONNX model, for `benchmarks.mixed_precision`. Runs in NNCF's own environment.

Called as `python mixed_precision_nncf.py FOLDER MAX_DROP`. FOLDER holds model.onnx, calibration_x.npy,
validation_x.npy and validation_y.npy (float32 and int64); it gets nncf.onnx and nncf.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import onnx
import onnxruntime


class Top1:
    """Top-1 as NNCF asks for it: of a model and items, with the score of every item for its ranking."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self._model: Any = None
        self._session: Any = None

    def __call__(self, model: Any, items: Iterable[Any]) -> tuple[float, list[float]]:
        """Share of right answers, and 0 or 1 for each item."""
        if model is not self._model:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            content = model if isinstance(model, bytes) else model.SerializeToString()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self._model = model
        right = [float(int(self._session.run(None, feed)[0].argmax()) == label) for feed, label in items]
        self.calls.append(len(right))
        return sum(right) / len(right), right


def main() -> None:
    """Quantize with accuracy control and write model and numbers."""
    folder, max_drop = Path(sys.argv[1]), float(sys.argv[2])
    model = onnx.load(folder / "model.onnx")
    name = model.graph.input[0].name
    calibration, x, y = (np.load(folder / f"{key}.npy") for key in ("calibration_x", "validation_x", "validation_y"))
    # Items reach the validation function as they are, so each carries its feed and its label.
    items = [({name: x[i : i + 1]}, int(y[i])) for i in range(len(x))]
    top1 = Top1()
    start = time.monotonic()
    made = nncf.quantize_with_accuracy_control(
        model,
        nncf.Dataset([{name: calibration[i : i + 1]} for i in range(len(calibration))]),
        nncf.Dataset(items, lambda item: item[0]),
        top1,
        max_drop=max_drop,
        subset_size=len(calibration),
    )
    seconds = time.monotonic() - start
    onnx.save(made, folder / "nncf.onnx")
    full = sum(count == len(items) for count in top1.calls)
    result = {
        "version": nncf.__version__,
        "seconds": round(seconds, 2),
        "full_evaluations": full,
        "partial_evaluations": len(top1.calls) - full,
        "samples_answered": sum(top1.calls),
    }
    (folder / "nncf.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
