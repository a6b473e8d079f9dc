"""Intel's onnx-neural-compressor: static quantization per channel, and its autotune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import quantize, tuning
from onnx_neural_compressor.quantization.config import StaticQuantConfig
from runner import Inputs, accuracy, run


class Reader(data_reader.CalibrationDataReader):
    """The calibration samples, one at a time, as often as asked."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        """Next feed, None at the end."""
        return next(self.feeds, None)

    def rewind(self) -> None:
        """Begin again."""
        self.feeds = self.inputs.feeds()


def static(inputs: Inputs, out: Path) -> None:
    """quantize with StaticQuantConfig, per channel; else as it is (uint8 activations, QOperator)."""
    config = StaticQuantConfig(Reader(inputs), per_channel=True, calibration_sampling_size=300)
    quantize(str(inputs.teacher), str(out / "model.onnx"), config)


def autotune(inputs: Inputs, out: Path) -> dict[str, Any]:
    """tuning.autotune over its own set of configurations; stops at a relative loss of at most 0.01 (its default)."""
    trials: list[float] = []

    def score(path: str) -> float:
        trials.append(accuracy(path, inputs))
        return trials[-1]

    config = tuning.TuningConfig(config_set=StaticQuantConfig.get_config_set_for_tuning())
    model = tuning.autotune(str(inputs.teacher), config, score, calibration_data_reader=Reader(inputs))
    onnx.save(model, out / "model.onnx")
    return {"evaluations": len(trials), "validation_accuracies": [round(value, 4) for value in trials]}


if __name__ == "__main__":
    run({"static_per_channel": static, "autotune": autotune})
