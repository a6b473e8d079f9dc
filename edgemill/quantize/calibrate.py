"""Activation ranges of an fp32 ONNX graph from the calibration split, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError
from edgemill.quantize.calibrators.activations import Activations
from edgemill.quantize.calibrators.entropy import entropy_range
from edgemill.quantize.calibrators.extremes import Extremes, Range
from edgemill.quantize.calibrators.histogram import BINS, Histogram
from edgemill.quantize.calibrators.memory import Plan, plan
from edgemill.quantize.calibrators.percentile import percentile_range
from edgemill.quantize.calibrators.squared_error import least_squares_range
from edgemill.recipe import Calibration

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
_COLLECTING = 0.8
_COUNT_BYTES = 8
_SHOWN = 5


def plan_calibration(path: Path, data: Dataset, method: Calibration, batch_size: int, memory_bytes: int) -> Plan:
    """Choose how the samples go through the graph, and estimate the memory it takes.

    Args:
        path: fp32 ONNX.
        data: the calibration split is used.
        method: how ranges are found.
        batch_size: most samples per inference.
        memory_bytes: memory to stay within if possible.

    Raises:
        DataError: there is no calibration sample.
        ToolchainError: onnxruntime cannot run the graph.
    """
    _check_samples(data)
    activations = Activations(path)
    sizes = activations.sample_bytes(data.features(SplitName.CALIBRATION, 0, 1))
    state = 0 if method is Calibration.MINMAX else BINS * _COUNT_BYTES
    return plan(sizes, batch_size, activations.model_bytes, state, memory_bytes)


def find_ranges(
    path: Path,
    data: Dataset,
    method: Calibration,
    percentile: float,
    how: Plan,
    report: Callable[[float | None, str], None],
) -> dict[str, Range]:
    """Range of every activation that quantization can need.

    Batches go through accumulators one at a time, so that memory does not depend on the number of samples.
    Ranges of tensors that are never negative start at exactly 0, without which a runtime cannot absorb
    a ReLU.

    Args:
        path: fp32 ONNX.
        data: the calibration split is used.
        method: how a range is found from the values.
        percentile: share of the values that a range holds, in %; for `Calibration.PERCENTILE`.
        how: from `plan_calibration`.
        report: progress, up to 0.8.

    Returns:
        (lowest, highest) by tensor name; every range holds 0.

    Raises:
        DataError: there is no calibration sample, or an activation is not finite on one.
        ToolchainError: onnxruntime cannot run the graph.
    """
    _check_samples(data)
    activations = Activations(path)
    positive = never_negative(onnx.load(str(path)))
    size = data.sizes[SplitName.CALIBRATION]
    found: dict[str, Range] = {}
    for index, group in enumerate(how.groups):
        kind = Extremes if method is Calibration.MINMAX else Histogram
        held = {name: kind() for name in group}
        done = 0
        for count, values in activations.values(group, _batches(data, size, how.batch_size)):
            for name in group:
                held[name].update(values.pop(name))
            done += count
            _check_finite(held, done)
            passed = f", pass {index + 1} of {len(how.groups)}" if len(how.groups) > 1 else ""
            report(
                _COLLECTING * (index + done / size) / len(how.groups), f"calibration sample {done} of {size}{passed}"
            )
        found |= {name: _range(accumulator, method, percentile) for name, accumulator in held.items()}
    return {name: (0.0 if name in positive else low, high) for name, (low, high) in found.items()}


def _range(accumulator: Extremes, method: Calibration, percentile: float) -> Range:
    if not accumulator.size:  # a tensor may have no element
        return 0.0, 0.0
    if not isinstance(accumulator, Histogram):
        return accumulator.full_range()
    if method is Calibration.PERCENTILE:
        return percentile_range(accumulator, percentile)
    return entropy_range(accumulator) if method is Calibration.ENTROPY else least_squares_range(accumulator)


def _batches(data: Dataset, size: int, batch_size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, size, batch_size):
        yield data.features(SplitName.CALIBRATION, start, min(start + batch_size, size))


def _check_samples(data: Dataset) -> None:
    if data.sizes[SplitName.CALIBRATION] == 0:
        raise DataError(
            "The calibration split is empty.", where="data.split.calibration", remedy="give it some samples"
        )


def _check_finite(held: dict[str, Extremes], done: int) -> None:
    bad = [name for name, accumulator in held.items() if not accumulator.finite]
    if bad:
        raise DataError(
            "An activation is not finite on the calibration samples.",
            where=", ".join(bad[:_SHOWN]),
            expected="finite values",
            got=f"NaN or infinity in {len(bad)} tensors within the first {done} samples",
            remedy="look for NaN and infinity in the calibration split and in the weights",
        )


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
