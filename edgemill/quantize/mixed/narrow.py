"""Smaller weights for operators whose activations stay float: 4 bits in blocks, or float16.

4 bits: the operator MatMulNBits of com.microsoft, which every supported onnxruntime has. On x86-64 with VNNI it
took 0.30 of the time of float32 for one sample, where int8 took 0.37 (1024 x 1024, one thread).
float16: stored so, and converted to float32 when the file is loaded; as fast as float32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edgemill.quantize.mixed.groups import WEIGHTED, Group
from edgemill.quantize.onnx_graph import Editor, attribute

BLOCK = 32
"""Weights that share a scale."""

_LEAST_WEIGHTS = 4096
_LEVELS = 8
_SHRINK = np.linspace(1.0, 0.7, 16)
_LARGEST_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FourBits:
    """A matrix (K, N) in blocks of 4-bit weights along K.

    Attributes:
        stored: uint8 (N, blocks, BLOCK / 2), two weights a byte, the first in the low half, 8 means 0.
        scales: float32 (N, blocks).
        values: float32 (K, N), what is meant.
    """

    stored: NDArray[np.uint8]
    scales: NDArray[np.float32]
    values: NDArray[np.float32]


def four_bits(weights: NDArray[np.float32]) -> FourBits:
    """Round a matrix to 4 bits; of 16 scales per block the one with the least squared error.

    Args:
        weights: float32 (K, N).
    """
    depth, width = weights.shape
    blocks = -(-depth // BLOCK)
    rows = np.zeros((width, blocks * BLOCK), np.float32)
    rows[:, :depth] = weights.T
    held = rows.reshape(width, blocks, BLOCK)
    at = np.abs(held).argmax(axis=2, keepdims=True)
    # The largest weight of a block is at -8 steps, so that all sixteen levels are used.
    widest = np.take_along_axis(held, at, axis=2) / -_LEVELS
    best = np.full(widest.shape, np.inf)
    scale, steps = np.ones_like(widest), np.zeros(held.shape)
    for factor in _SHRINK:
        tried = np.where(widest == 0, np.float32(1), (widest * factor).astype(np.float32))
        rounded = np.clip(np.round(held / tried), -_LEVELS, _LEVELS - 1)
        error = ((rounded * tried - held) ** 2).sum(axis=2, keepdims=True)
        better = error < best
        best, scale, steps = (
            np.where(better, error, best),
            np.where(better, tried, scale),
            np.where(better, rounded, steps),
        )
    raised = (steps + _LEVELS).astype(np.uint8)
    packed = (raised[..., 0::2] | (raised[..., 1::2] << 4)).astype(np.uint8)
    values = (steps * scale).reshape(width, -1)[:, :depth].T.astype(np.float32)
    return FourBits(packed, scale[..., 0].astype(np.float32), np.ascontiguousarray(values))


def four_bit_groups(model: onnx.ModelProto, groups: tuple[Group, ...]) -> tuple[int, ...]:
    """Groups all of whose operators with weights can have them in 4 bits, most weights first."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    sizes = {node.name: _size(node, constants) for node in model.graph.node if node.op_type in WEIGHTED}
    found = []
    for index, group in enumerate(groups):
        held = [sizes[name] for name in group.nodes if name in sizes]
        if held and min(held) >= _LEAST_WEIGHTS:
            found.append((-sum(held), index))
    return tuple(index for _, index in sorted(found))


def _size(node: NodeProto, constants: dict[str, TensorProto]) -> int:
    tensor = constants.get(node.input[1])
    if node.op_type not in {"MatMul", "Gemm"} or tensor is None or len(tensor.dims) != 2:
        return 0
    if node.op_type == "Gemm" and (
        attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1
    ):
        return 0
    return int(np.prod(tensor.dims)) if tensor.data_type == TensorProto.FLOAT else 0


def to_four_bits(model: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """Replace float matrix products by ones with 4-bit weights, in place.

    Args:
        model: any; the named operators read float weights.
        names: of the operators; others than matrix products with constant weights are left alone.

    Returns:
        names of those that were replaced.
    """
    editor = Editor(model)
    done = []
    for node in [node for node in editor.graph.node if node.name in names]:
        if not _size(node, editor.constants):
            continue
        weights = editor.value(node.input[1])
        assert weights is not None
        matrix = weights.T if node.op_type == "Gemm" and attribute(node, "transB", 0) else weights
        made = four_bits(matrix)
        stored = editor.constant(made.stored, f"{node.input[1]}_int4")
        scales = editor.constant(made.scales.reshape(-1), f"{node.input[1]}_scales")
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        product = editor.name(f"{node.output[0]}_product") if bias else node.output[0]
        parts = [_product(node, matrix, stored, scales, product)]
        if bias:
            parts.append(helper.make_node("Add", [product, bias], [node.output[0]], name=f"{node.name}/bias"))
        editor.insert(node, *parts)
        editor.graph.node.remove(node)
        done.append(node.name)
    if done:
        editor.tidy()
        if all(entry.domain != "com.microsoft" for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return done


def _product(node: NodeProto, matrix: NDArray[Any], stored: str, scales: str, output: str) -> NodeProto:
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], stored, scales],
        [output],
        name=node.name,
        domain="com.microsoft",
        K=matrix.shape[0],
        N=matrix.shape[1],
        bits=4,
        block_size=BLOCK,
    )


def to_half(model: onnx.ModelProto, names: Collection[str]) -> list[str]:
    """Store the float weights of some operators as float16, in place.

    Args:
        model: any.
        names: of the operators; weights that others read, too, or that float16 cannot hold, stay float32.

    Returns:
        names of the tensors that were changed.
    """
    editor = Editor(model)
    done = []
    for name in list(editor.constants):
        readers = editor.consumers(name)
        values = editor.value(name)
        assert values is not None
        if values.dtype != np.float32 or values.ndim < 2 or not readers or name in editor.outputs:
            continue
        if any(reader.name not in names for reader in readers) or not np.abs(values).max(initial=0) <= _LARGEST_HALF:
            continue
        real = editor.name(f"{name}_float")
        stored = editor.constant(values.astype(np.float16), f"{name}_half")
        for reader in readers:
            for i, read in enumerate(reader.input):
                if read == name:
                    reader.input[i] = real
        editor.graph.node.insert(
            0, helper.make_node("Cast", [stored], [real], name=f"{real}/Cast", to=TensorProto.FLOAT)
        )
        done.append(name)
    if done:
        editor.tidy()
    return done
