"""Qualcomm AIMET for ONNX: post-training quantization with its defaults (int8), exported as QDQ."""

from __future__ import annotations

from pathlib import Path

import onnx
from aimet_onnx import QuantizationSimModel
from runner import Inputs, run


def ptq(inputs: Inputs, out: Path) -> None:
    """The default export: weights stay fp32 in front of their quantizers."""
    onnx.save(_calibrated(inputs).to_onnx_qdq(), out / "model.onnx")


def ptq_prequantized(inputs: Inputs, out: Path) -> None:
    """The same with its option to store weights as int8."""
    onnx.save(_calibrated(inputs).to_onnx_qdq(prequantize_constants=True), out / "model.onnx")


def _calibrated(inputs: Inputs) -> QuantizationSimModel:
    sim = QuantizationSimModel(onnx.load(inputs.teacher), providers=["CPUExecutionProvider"])
    sim.compute_encodings(inputs.feeds())
    return sim


if __name__ == "__main__":
    run({"ptq": ptq, "ptq_prequantized": ptq_prequantized})
