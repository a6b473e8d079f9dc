"""uint8 weights on the grid of int8 weights: stored + 128 with zero point + 128 means exactly the same numbers.

x86 without VNNI multiplies uint8 by int8 with VPMADDUBSW, which adds two products in 16 bits and saturates;
for uint8 by uint8 onnxruntime takes kernels that widen first and never do (onnxruntime, "Quantize ONNX models",
on the overflow of U8S8). The product is exact on every CPU then, and slower on those that have the fast one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from edgemill.errors import ToolchainError
from edgemill.quantize import UnsignedSettings
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

_OFFSET = 128

_ZERO_POINT = {
    "DequantizeLinear": (0, 2),
    "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
    "QLinearConv": (3, 5),
    "QLinearMatMul": (3, 5),
    "QGemm": (3, 5),
    "MatMulIntegerToFloat": (1, 5),
    "DynamicQuantizeMatMul": (1, 3),
}
"""By operator: which input are the weights, and which their zero point."""

_MOVES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_MULTIPLIES = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def run(settings: UnsignedSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Give the weights of an 8-bit model the type uint8; nothing is quantized anew.

    Inputs:
        onnx: with uint8 activations, from static, dynamic or trained quantization.

    Outputs:
        onnx. Facts: `changed`, names of the weights.

    Raises:
        ToolchainError: the model has no int8 weights, or onnxruntime does not load the result.
    """
    source = inputs["onnx"]
    model = onnx.load(str(source.path))
    changed = to_unsigned(model)
    if not changed:
        raise ToolchainError("The model has no int8 weights.", where=source.path.name)
    target = context.out / "model.onnx"
    onnx.save(model, str(target))
    return Outputs(
        {"onnx": OutputFile(target, "onnx", ONNXRUNTIME.load(target).signature)}, {"changed": sorted(changed)}
    )


def to_unsigned(model: ModelProto) -> list[str]:
    """Change a graph in place.

    Weights are constant int8 tensors of two or more dimensions that a product reads, directly or through
    DequantizeLinear.

    Returns:
        names of the weights that were changed.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    products = {name for node in graph.node if node.op_type in _MULTIPLIES for name in node.input[1:2]}
    for node in reversed(graph.node):
        if node.op_type in _MOVES and node.output[0] in products:
            products.add(node.input[0])
    changed: dict[str, str] = {}
    for node in graph.node:
        place = _weight_of(node, constants, products)
        if place is None:
            continue
        weight, zero = place
        name = node.input[weight]
        shifted = changed.get(name)
        if shifted is None:
            values = numpy_helper.to_array(constants[name])
            shifted = changed[name] = _add(graph, f"{name}_uint8", _shift(values))
        node.input[weight] = shifted
        _shift_zero_point(graph, node, zero, constants)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return list(changed)


def _weight_of(node: NodeProto, constants: Mapping[str, Any], products: set[str]) -> tuple[int, int] | None:
    places = _ZERO_POINT.get(node.op_type)
    if places is None or len(node.input) <= places[0]:
        return None
    tensor = constants.get(node.input[places[0]])
    if tensor is None or tensor.data_type != onnx.TensorProto.INT8 or len(tensor.dims) < 2:
        return None
    if node.op_type == "DequantizeLinear" and node.output[0] not in products:
        return None
    return places


def _shift_zero_point(graph: Any, node: NodeProto, place: int, constants: Mapping[str, Any]) -> None:
    while len(node.input) <= place:
        node.input.append("")
    name = node.input[place]
    if name and name not in constants:
        raise ToolchainError("The zero point of a weight is not constant.", where=node.name, got=name)
    before = numpy_helper.to_array(constants[name]) if name else np.zeros(_scale_shape(node, constants), np.int8)
    node.input[place] = _add(graph, f"{node.input[0] or node.output[0]}_{name or 'zero'}_uint8", _shift(before))


def _scale_shape(node: NodeProto, constants: Mapping[str, Any]) -> tuple[int, ...]:
    if node.op_type != "DequantizeLinear" or node.input[1] not in constants:
        return ()
    return tuple(constants[node.input[1]].dims)


def _shift(values: NDArray[Any]) -> NDArray[np.uint8]:
    shifted: NDArray[np.uint8] = (values.astype(np.int16) + _OFFSET).astype(np.uint8)
    return shifted


def _add(graph: Any, name: str, values: NDArray[np.uint8]) -> str:
    taken = {tensor.name for tensor in graph.initializer}
    unique = next(title for title in (name, *(f"{name}_{i}" for i in range(len(taken) + 1))) if title not in taken)
    graph.initializer.append(numpy_helper.from_array(values, unique))
    return unique
