"""NVIDIA ModelOpt on ONNX: int8 on the CPU's execution provider. Its placement of quantizers is for TensorRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from modelopt.onnx.quantization import quantize
from runner import Inputs, run


def int8(inputs: Inputs, out: Path) -> None:
    """quantize(quantize_mode="int8") with its own calibration method; high precision stays fp32 for the CPU."""
    quantize(
        str(inputs.teacher),
        quantize_mode="int8",
        calibration_data=np.array(inputs.array("calibration_x")),
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(out / "model.onnx"),
    )


if __name__ == "__main__":
    run({"int8": int8})
