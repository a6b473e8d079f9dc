"""NNCF on its ONNX backend: post-training quantization, and the same with accuracy control."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nncf
import onnx
import onnxruntime
from runner import Inputs, run

MAX_DROP = 0.001


class Validation:
    """Top-1 as NNCF asks for it: a function of a model and of items."""

    def __init__(self) -> None:
        self.calls = 0
        self.samples = 0
        self._model: onnx.ModelProto | None = None
        self._session: Any = None

    def __call__(self, model: onnx.ModelProto, items: Iterable[Any]) -> float:
        """Share of right answers. NNCF calls it for one item too, to rank the operators."""
        if model is not self._model:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            self._model = model
        self.calls += 1
        answers = [int(self._session.run(None, feed)[0].argmax()) == label for feed, label in items]
        self.samples += len(answers)
        return sum(answers) / len(answers)


def ptq(inputs: Inputs, out: Path) -> None:
    """nncf.quantize with its own settings (300 calibration samples is its own number, too)."""
    onnx.save(nncf.quantize(onnx.load(inputs.teacher), nncf.Dataset(list(inputs.feeds()))), out / "model.onnx")


def accuracy_control(inputs: Inputs, out: Path) -> dict[str, Any]:
    """nncf.quantize_with_accuracy_control: an absolute drop of at most 0.001 on the validation split."""
    labels = (int(label) for label in inputs.array("validation_y"))
    # Items reach the validation function as they are, so each carries its label.
    validation = nncf.Dataset(list(zip(inputs.feeds("validation_x"), labels, strict=True)), lambda item: item[0])
    top1 = Validation()
    model = nncf.quantize_with_accuracy_control(
        onnx.load(inputs.teacher), nncf.Dataset(list(inputs.feeds())), validation, top1, max_drop=MAX_DROP
    )
    onnx.save(model, out / "model.onnx")
    return {"max_drop": MAX_DROP, "calls_of_validation": top1.calls, "samples_validated": top1.samples}


if __name__ == "__main__":
    run({"ptq": ptq, "accuracy_control": accuracy_control})
