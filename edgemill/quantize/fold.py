"""Fold constant per-channel arithmetic into the weights before it, and dense layers into Gemm."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from edgemill.quantize.onnx_graph import Editor, attribute

_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MATRIX = 2


def fold(model: onnx.ModelProto) -> None:
    """Fold, in place, BatchNormalization and constant arithmetic behind a weighted node; MatMul of (N, K) becomes Gemm.

    A folded factor scales a whole output channel, so weights that were on a per-channel grid are
    on one afterwards.
    """
    editor = Editor(model)
    ranks = _ranks(model)
    for node in list(editor.graph.node):
        if node.op_type == "MatMul" and ranks.get(node.input[0]) == _MATRIX and editor.value(node.input[1]) is not None:
            node.op_type = "Gemm"
    for node in list(editor.graph.node):
        if node.op_type in _WEIGHTED and editor.value(node.input[1]) is not None:
            while (reader := editor.only_consumer(node.output[0])) is not None and _absorb(editor, node, reader):
                pass
    editor.tidy()


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }


def output_axis(node: NodeProto) -> int:
    """Axis of a weight tensor that counts output channels (before groups, for ConvTranspose)."""
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}[node.op_type]


def _absorb(editor: Editor, node: NodeProto, reader: NodeProto) -> bool:
    weight = editor.value(node.input[1])
    assert weight is not None
    channels = weight.shape[output_axis(node)]
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return False
    affine = _affine(editor, node, reader, channels)
    if affine is None:
        return False
    factor, offset = affine
    bias = _bias(editor, node, channels)
    if bias is None or (node.op_type == "MatMul" and offset.any()):
        return False
    if node.op_type == "Gemm" and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)) != (1.0, 1.0):
        return False
    shape = [1] * weight.ndim
    shape[output_axis(node)] = channels
    if (factor != 1).any():
        node.input[1] = editor.constant((weight * factor.reshape(shape)).astype(np.float32), f"{node.input[1]}_folded")
    new_bias = (bias * factor + offset).astype(np.float32)
    if node.op_type != "MatMul" and (len(node.input) > _MATRIX or new_bias.any()):
        name = editor.constant(new_bias, f"{node.name}_bias")
        if len(node.input) > _MATRIX:
            node.input[2] = name
        else:
            node.input.append(name)
    result = reader.output[0]
    editor.graph.node.remove(reader)
    node.output[0] = result
    return True


def _bias(editor: Editor, node: NodeProto, channels: int) -> NDArray[Any] | None:
    if len(node.input) <= _MATRIX or not node.input[2]:
        return np.zeros(channels)
    held = editor.value(node.input[2])
    return None if held is None or held.size not in (1, channels) else np.broadcast_to(held.reshape(-1), (channels,))


def _affine(
    editor: Editor, node: NodeProto, reader: NodeProto, channels: int
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """y = factor * x + offset per channel, if that is what `reader` does."""
    if reader.op_type == "BatchNormalization":
        held = [editor.value(name) for name in reader.input[1:5]]
        if any(item is None for item in held):
            return None
        scale, offset, mean, variance = (np.asarray(item, np.float64) for item in held)
        factor = scale / np.sqrt(variance + attribute(reader, "epsilon", 1e-5))
        return factor, offset - mean * factor
    if reader.op_type not in {"Add", "Sub", "Mul", "Div"}:
        return None
    own = list(reader.input).index(node.output[0])
    constant_first = own == 1 and reader.op_type in {"Sub", "Div"}
    held_one = editor.value(reader.input[1 - own])
    if held_one is None or constant_first or not _per_channel(held_one, node, channels):
        return None
    value = np.broadcast_to(held_one.reshape(-1).astype(np.float64), (channels,))
    one, zero = np.ones(channels), np.zeros(channels)
    if reader.op_type == "Div":
        return (1 / value, zero) if value.all() else None
    return {"Add": (one, value), "Sub": (one, -value), "Mul": (value, zero)}[reader.op_type]


def _per_channel(value: NDArray[Any], node: NodeProto, channels: int) -> bool:
    """Whether a constant broadcasts over everything but the channels."""
    if value.size == 1:
        return True
    if value.size != channels:
        return False
    axis = -1 if node.op_type in {"Gemm", "MatMul"} else 1
    rank = 0 if axis == -1 else len(attribute(node, "kernel_shape", ())) + 2
    padded = (1,) * max(0, rank - value.ndim) + value.shape
    return padded[axis] == channels
