"""Activation ranges of an fp32 ONNX graph from the calibration split, through onnxruntime."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError
from edgemill.recipe import Calibration

_METHODS = {
    Calibration.MINMAX: CalibrationMethod.MinMax,
    Calibration.ENTROPY: CalibrationMethod.Entropy,
    Calibration.PERCENTILE: CalibrationMethod.Percentile,
}
# onnxruntime's own default has as many bins as quantized bins, which leaves entropy nothing to choose.
_ENTROPY = {"num_bins": 512, "num_quantized_bins": 128}
# Operators that never answer below 0.
_NEVER_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp", "Softplus"}
_KEEP_SIGN = {
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Transpose",
}

Range = tuple[float, float]


class OneBatch(CalibrationDataReader):  # type: ignore[misc]
    """A reader that gives one batch."""

    def __init__(self, name: str, x: NDArray[np.float32]) -> None:
        self._feed: dict[str, NDArray[np.float32]] | None = {name: x}

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The batch, then None."""
        feed, self._feed = self._feed, None
        return feed


def find_ranges(
    path: Path,
    data: Dataset,
    method: Calibration,
    percentile: float,
    batch_size: int,
    folder: Path,
    report: Callable[[float | None, str], None],
) -> dict[str, Range]:
    """Range of every activation that quantization can need.

    Batches go through the calibrator one at a time: the histogram methods would keep every activation
    of all samples in memory otherwise. Ranges of tensors that are never negative start at exactly 0,
    which the histogram methods miss by a bin, and without which a runtime cannot absorb a ReLU.

    Args:
        path: fp32 ONNX.
        folder: for the calibrator's own files.

    Returns:
        (lowest, highest) by tensor name; every range holds 0.

    Raises:
        DataError: there is no calibration sample, or an activation is not finite on one.
    """
    size = data.sizes[SplitName.CALIBRATION]
    if size == 0:
        raise DataError(
            "The calibration split is empty.", where="data.split.calibration", remedy="give it some samples"
        )
    options: dict[str, Any] = {"symmetric": False}
    if method is Calibration.PERCENTILE:
        options["percentile"] = percentile
    if method is Calibration.ENTROPY:
        options |= _ENTROPY
    calibrator = create_calibrator(
        path,
        augmented_model_path=str(folder / "augmented.onnx"),
        calibrate_method=_METHODS[method],
        extra_options=options,
    )
    model = onnx.load(str(path))
    name = model.graph.input[0].name
    for start in range(0, size, batch_size):
        stop = min(start + batch_size, size)
        with contextlib.redirect_stdout(io.StringIO()):  # the histogram methods talk
            calibrator.collect_data(OneBatch(name, data.features(SplitName.CALIBRATION, start, stop)))
        report(0.8 * stop / size, f"calibration sample {stop} of {size}")
    with contextlib.redirect_stdout(io.StringIO()):
        computed = calibrator.compute_data()
    found = {
        tensor: tuple(float(np.asarray(limit).reshape(-1)[0]) for limit in held.range_value)
        for tensor, held in computed.items()
    }
    bad = [tensor for tensor, limits in found.items() if not np.isfinite(limits).all()]
    if bad:
        raise DataError(
            "An activation is not finite on the calibration samples.",
            where=", ".join(bad[:5]),
            expected="finite values",
            remedy="look for NaN and infinity in the calibration split and in the weights",
        )
    positive = never_negative(model)
    return {
        tensor: (0.0 if tensor in positive else min(low, 0.0), max(high, 0.0)) for tensor, (low, high) in found.items()
    }


def never_negative(model: onnx.ModelProto) -> set[str]:
    """Tensors that are at least 0 whatever the input."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found: set[str] = set()
    for node in model.graph.node:
        clipped = (
            node.op_type == "Clip" and len(node.input) > 1 and (constants.get(node.input[1], np.array(-1)) >= 0).all()
        )
        if node.op_type in _NEVER_NEGATIVE or clipped or (node.op_type in _KEEP_SIGN and node.input[0] in found):
            found.update(node.output)
    return found


def as_tensors_data(ranges: dict[str, Range]) -> TensorsData:
    """Ranges in the form that onnxruntime's quantizer takes."""
    return TensorsData(
        CalibrationMethod.MinMax,
        {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()},
    )
