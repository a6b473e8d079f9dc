"""Rewrite QDQ graphs by NVIDIA's rules: zero points of 0, biases in floating point, fixed shapes.

A tensor whose range is [low, high] gets the scale max(|low|, |high|) / 127. Where the range begins at 0 the
quantizer has removed a Relu, because an asymmetric grid cuts negative values off by itself; a symmetric one
does not, so the Relu comes back.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgemill.compile.qdq_tensors import (
    DEQUANTIZE,
    QUANTIZE,
    Quantized,
    Role,
    add_constant,
    constants_of,
    drop_unused,
    read_quantized,
    with_batch,
)

_CALCULATE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Sum", "BatchNormalization")
"""Operators whose results can be negative where those that only move numbers keep what is positive."""


def adapt(source: ModelProto, where: str) -> ModelProto:
    """A copy for one sample at a time that keeps NVIDIA's rules, see `tensorrt_rules`.

    Raises:
        ToolchainError: its shapes cannot be fixed, or a scale is not constant.
    """
    model = ModelProto()
    model.CopyFrom(source)
    for tensor in read_quantized(model):
        if tensor.role is Role.BIAS:
            _to_float(model, tensor)
        elif tensor.role is not Role.WEIGHT and (tensor.dtype != "int8" or tensor.zero.any()):
            _to_symmetric(model, tensor)
    drop_unused(model)
    return with_batch(model, 1, where)


def symmetric_scale(scale: float, zero: int, dtype: str) -> float:
    """Scale of the symmetric int8 grid that reaches as far as an asymmetric one."""
    limits = np.iinfo(np.dtype(dtype))
    return scale * max(zero - limits.min, limits.max - zero) / 127


def _to_symmetric(model: ModelProto, tensor: Quantized) -> None:
    node = tensor.node
    scale, zero = float(tensor.scale.item()), int(tensor.zero.item())
    symmetric = np.array(symmetric_scale(scale, zero, tensor.dtype), np.float32)
    if node.op_type == DEQUANTIZE and tensor.role is Role.CONSTANT:
        values = numpy_helper.to_array(constants_of(model.graph)[node.input[0]])
        real = (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)
        stored = np.clip(np.rint(real / symmetric), -127, 127).astype(np.int8)
        node.input[0] = add_constant(model, f"{node.input[0]}_symmetric", stored)
    if node.op_type == QUANTIZE and zero == np.iinfo(np.dtype(tensor.dtype)).min:
        _restore_relu(model, node)
    kept = list(node.input[:1])
    del node.input[:]
    node.input.extend(
        [
            *kept,
            add_constant(model, f"{node.output[0]}_scale", symmetric),
            add_constant(model, f"{node.output[0]}_zero", np.array(0, np.int8)),
        ]
    )


def _restore_relu(model: ModelProto, quantize: NodeProto) -> None:
    producer = next((node for node in model.graph.node if quantize.input[0] in node.output), None)
    if producer is None or producer.op_type not in _CALCULATE:
        return
    positive = f"{quantize.input[0]}_{quantize.output[0]}_relu"
    at = next(index for index, node in enumerate(model.graph.node) if node is quantize or node == quantize)
    model.graph.node.insert(at, helper.make_node("Relu", [quantize.input[0]], [positive], name=positive))
    model.graph.node[at + 1].input[0] = positive


def _to_float(model: ModelProto, tensor: Quantized) -> None:
    node = tensor.node
    stored = numpy_helper.to_array(constants_of(model.graph)[node.input[0]]).astype(np.float64)
    real = ((stored - tensor.zero) * tensor.scale.astype(np.float64)).astype(np.float32)
    name = add_constant(model, f"{node.output[0]}_float", real)
    for user, index in tensor.users:
        user.input[index] = name
