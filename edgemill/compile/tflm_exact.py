"""Whether TensorFlow Lite Micro gives LiteRT's integers, and where not, whether rounding alone explains it.

Since 2026 LiteRT's reference kernel of FULLY_CONNECTED rounds once, in floating point
(github.com/google-ai-edge/LiteRT, issue 8567); every other one, and all of TFLM's, rounds twice, in integers. A
sum that lies almost between two integers then comes out one apart. CMSIS-NN on the device follows TFLM (README
of CMSIS-NN 7.0.0). Such a sample is accepted where TFLM's output is exactly that of the integer rule, and
everything before it is equal; any other difference is a fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

from edgemill.errors import ToolchainError
from edgemill.runtimes.convert import batches, to_stored
from edgemill.runtimes.tflm import TflmModel

_ROUNDED = "FULLY_CONNECTED"
_CEILINGS = {schema.ActivationFunctionType.RELU6: 6.0, schema.ActivationFunctionType.RELU_N1_TO_1: 1.0}
_FLOORS = {
    schema.ActivationFunctionType.RELU: 0.0,
    schema.ActivationFunctionType.RELU6: 0.0,
    schema.ActivationFunctionType.RELU_N1_TO_1: -1.0,
}


@dataclass(frozen=True)
class Exactness:
    """How alike the integers are.

    Attributes:
        compared: samples.
        equal: those with equal bits.
        rounded: those that differ by the rounding of FULLY_CONNECTED alone, as proven by calculating it.
        answers: of TFLM, in the output's own type, (N, *output_shape).
        reference: of LiteRT's reference kernels.
    """

    compared: int
    equal: int
    rounded: int
    answers: NDArray[np.generic]
    reference: NDArray[np.generic]


def compare_exactly(path: Path, x: NDArray[np.float32]) -> Exactness:
    """Run a quantized TFLite file in both interpreters.

    Args:
        path: the file.
        x: float32 (N, *sample_shape).

    Raises:
        ToolchainError: a difference that the rounding of FULLY_CONNECTED does not explain, with its operator.
    """
    micro, lite = TflmModel(path, keep_tensors=True), _Reference(path)
    entry = micro.signature.inputs[0]
    answers, references, rounded = [], [], 0
    equal = 0
    for batch, count in batches(x, entry.shape[0] or 1):
        run = micro.prepare(batch)
        answer, reference = np.asarray(run()), lite.run(to_stored(batch, entry))
        alike = (answer == reference).reshape(len(answer), -1).all(1)[:count]
        equal += int(alike.sum())
        if not alike.all():
            _explain(path, micro, lite)
            rounded += int((~alike).sum())
        answers.append(answer[:count])
        references.append(reference[:count])
    return Exactness(len(x), equal, rounded, np.concatenate(answers), np.concatenate(references))


class _Reference:
    """The file in LiteRT with reference kernels, with every intermediate tensor kept."""

    def __init__(self, path: Path) -> None:
        self.interpreter = Interpreter(
            model_path=str(path),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
        self.interpreter.allocate_tensors()
        self.ops: list[dict[str, Any]] = self.interpreter._get_ops_details()
        self.details = {int(detail["index"]): detail for detail in self.interpreter.get_tensor_details()}

    def run(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        self.interpreter.reset_all_variables()
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], stored)
        self.interpreter.invoke()
        output: NDArray[np.generic] = self.interpreter.get_tensor(self.interpreter.get_output_details()[0]["index"])
        return output

    def tensor(self, index: int) -> NDArray[np.generic]:
        value: NDArray[np.generic] = self.interpreter.get_tensor(index)
        return value


def _explain(path: Path, micro: TflmModel, lite: _Reference) -> None:
    """Refuse what parts the two in their last inference, unless it is the rounding of FULLY_CONNECTED."""
    for position, op in enumerate(lite.ops):
        index = int(op["outputs"][0])
        theirs, ours = lite.tensor(index).reshape(-1), micro.tensor(index)
        if np.array_equal(theirs, ours):
            continue
        if op["op_name"] == _ROUNDED and np.array_equal(_fully_connected(path, position, op, micro, lite), ours):
            return  # what follows calculates with other numbers than the reference's
        apart = np.abs(theirs.astype(np.float64) - ours.astype(np.float64))
        raise ToolchainError(
            "TensorFlow Lite Micro does not give the integers of LiteRT's reference kernels.",
            where=str(path),
            expected="equal bits",
            got=f"they part in {op['op_name']} {op['index']}: {int((apart > 0).sum())} of {apart.size} numbers, "
            f"by up to {apart.max():g} steps",
            remedy="this is a fault of one of the two: try another version of them",
        )


def _fully_connected(
    path: Path, position: int, op: dict[str, Any], micro: TflmModel, lite: _Reference
) -> NDArray[np.generic]:
    """The operator's output by TFLM's rule, from TFLM's own input: flat, int8."""
    data, weights, *rest = (int(index) for index in op["inputs"])
    target = int(op["outputs"][0])
    (x_scale, x_zero), (w_scale, w_zero), (y_scale, y_zero) = map(
        lite_scale, map(lite.details.get, (data, weights, target))
    )
    w = lite.tensor(weights).astype(np.int64) - w_zero[:, None]
    bias = lite.tensor(rest[0]).astype(np.int64) if rest and rest[0] >= 0 else np.int64(0)
    sums = (micro.tensor(data).astype(np.int64) - x_zero).reshape(-1, w.shape[1]) @ w.T + bias
    if len(w_scale) == 1:  # as TFLM does: the product is one of two float32
        real = np.float64(np.float32(x_scale[0]) * np.float32(w_scale[0])) / np.float64(y_scale[0])
        multipliers = [float(real)] * w.shape[0]
    else:
        multipliers = [float(x_scale[0]) * float(scale) / float(y_scale[0]) for scale in w_scale]
    rounded = np.stack([requantize(sums[:, row], real) for row, real in enumerate(multipliers)], axis=1)
    low, high = _limits(path, position, float(y_scale[0]), int(y_zero[0]))
    output: NDArray[np.generic] = np.clip(rounded + y_zero, low, high).astype(np.int8).reshape(-1)
    return output


def lite_scale(detail: dict[str, Any] | None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scales and zero points of a tensor, one or one a channel."""
    assert detail is not None
    parameters = detail["quantization_parameters"]
    return parameters["scales"], parameters["zero_points"].astype(np.int64)


def requantize(sums: NDArray[np.int64], real: float) -> NDArray[np.int64]:
    """Sums times a real number by the integer rule of TFLM, MultiplyByQuantizedMultiplier, with its two roundings."""
    fraction, shift = math.frexp(real)
    multiplier = round(fraction * (1 << 31))
    if multiplier == 1 << 31:
        multiplier, shift = multiplier // 2, shift + 1
    product = (sums << max(shift, 0)) * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.where(nudged >= 0, nudged >> 31, -(-nudged >> 31))
    right = max(-shift, 0)
    mask = (1 << right) - 1
    half = (mask >> 1) + (high < 0)
    up: NDArray[np.int64] = (high >> right) + ((high & mask) > half)
    return up


def _limits(path: Path, position: int, scale: float, zero: int) -> tuple[int, int]:
    """Smallest and largest int8 output that the fused activation lets through."""
    operator = schema.Model.GetRootAs(path.read_bytes(), 0).Subgraphs(0).Operators(position)
    options = schema.FullyConnectedOptions()
    if operator.BuiltinOptions() is None:
        return -128, 127
    options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
    kind = options.FusedActivationFunction()
    low = zero + round(_FLOORS[kind] / scale) if kind in _FLOORS else -128
    high = zero + round(_CEILINGS[kind] / scale) if kind in _CEILINGS else 127
    return max(low, -128), min(high, 127)
