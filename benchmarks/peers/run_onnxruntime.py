"""onnxruntime's quantizers: the defaults of their signatures, and the best known settings for x86 with VNNI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from runner import Inputs, run


class Reader(CalibrationDataReader):
    """The calibration samples, one at a time."""

    def __init__(self, inputs: Inputs) -> None:
        self.feeds = inputs.feeds()

    def get_next(self) -> dict[str, Any] | None:
        """Next feed, None at the end."""
        return next(self.feeds, None)


def dynamic(inputs: Inputs, out: Path) -> None:
    """quantize_dynamic as it is."""
    quantize_dynamic(inputs.teacher, out / "model.onnx")


def static_default(inputs: Inputs, out: Path) -> None:
    """quantize_static as it is: QDQ, int8 activations and weights, per tensor, MinMax."""
    quantize_static(inputs.teacher, out / "model.onnx", Reader(inputs))


def static_u8s8(inputs: Inputs, out: Path) -> None:
    """The same with uint8 activations, the best known on x86 with VNNI."""
    quantize_static(inputs.teacher, out / "model.onnx", Reader(inputs), activation_type=QuantType.QUInt8)


def static_u8s8_per_channel(inputs: Inputs, out: Path) -> None:
    """Weights per channel."""
    quantize_static(
        inputs.teacher, out / "model.onnx", Reader(inputs), activation_type=QuantType.QUInt8, per_channel=True
    )


def static_u8s8_reduced(inputs: Inputs, out: Path) -> None:
    """Weights of 7 bits: the smallest compressed file of its settings."""
    quantize_static(
        inputs.teacher, out / "model.onnx", Reader(inputs), activation_type=QuantType.QUInt8, reduce_range=True
    )


if __name__ == "__main__":
    run(
        {
            "dynamic": dynamic,
            "static_default": static_default,
            "static_u8s8": static_u8s8,
            "static_u8s8_per_channel": static_u8s8_per_channel,
            "static_u8s8_reduced": static_u8s8_reduced,
        }
    )
