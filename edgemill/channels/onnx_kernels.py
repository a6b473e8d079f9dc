"""Kernels that read channels, as matrices: what they are multiplied with, and how they are written back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgemill.channels.book import Role
from edgemill.channels.onnx_graph import OnnxChannels
from edgemill.channels.onnx_prepare import Prepared
from edgemill.channels.onnx_trace import attribute

Rows = NDArray[np.float32]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Kernel:
    """A kernel that reads channels.

    Attributes:
        name: of its node.
        index: of its node.
        size: kernel rows and columns; (1, 1) for a matrix.
    """

    name: str
    index: int
    size: tuple[int, int]


def reading_kernels(channels: OnnxChannels) -> list[Kernel]:
    """Kernels that read channels and can be seen as one matrix, in the order of the graph."""
    found = []
    for cut in channels.map.cuts:
        if cut.role is not Role.READS:
            continue
        node = channels.prepared.graph.node[cut.layer.index]
        size = channels.prepared.value(node.input[1]).shape[2:]
        if node.op_type == "Conv" and len(size) <= 2:
            found.append(
                Kernel(cut.layer.name, cut.layer.index, (1, size[0]) if len(size) == 1 else (size[0], size[1]))
            )
        elif node.op_type in ("Gemm", "MatMul"):
            found.append(Kernel(cut.layer.name, cut.layer.index, (1, 1)))
    return found


def matrix_of(prepared: Prepared, kernel: Kernel) -> Matrix:
    """Weights, float64 (outputs, inputs * rows * columns)."""
    node = prepared.graph.node[kernel.index]
    value = prepared.value(node.input[1]).astype(np.float64)
    if node.op_type == "Conv":
        return value.reshape(len(value), -1)
    if node.op_type == "MatMul" or not int(attribute(node, "transB", 0)):
        value = value.T
    return value * float(attribute(node, "alpha", 1.0))


def write_back(prepared: Prepared, kernel: Kernel, matrix: Matrix, shift: NDArray[np.float64]) -> None:
    """Set the weights of a kernel, and add to its bias.

    Args:
        prepared: the graph, changed in place; the order of its nodes stays up to this one.
        kernel: in this graph.
        matrix: float64 (outputs, inputs * rows * columns).
        shift: float64 (outputs,), added to the bias.
    """
    node = prepared.graph.node[kernel.index]
    old = prepared.value(node.input[1])
    if node.op_type == "Conv":
        value = matrix.reshape(old.shape)
    else:
        value = matrix / float(attribute(node, "alpha", 1.0))
        if node.op_type == "MatMul" or not int(attribute(node, "transB", 0)):
            value = value.T
    node.input[1] = prepared.add(value.astype(old.dtype), f"{node.input[1]}_repaired")
    if node.op_type == "MatMul":
        _shift_product(prepared, node, shift)
        return
    beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    has_bias = len(node.input) > 2 and node.input[2] and beta != 0
    bias = prepared.value(node.input[2]).astype(np.float64) if has_bias else np.zeros(len(shift))
    if beta == 0:
        _set(node, "beta", 1.0)
        beta = 1.0
    made = (np.broadcast_to(bias, (*bias.shape[:-1], len(shift))) if bias.ndim else bias) + shift / beta
    name = prepared.add(made.astype(old.dtype), f"{kernel.name}_bias_repaired")
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)


def _shift_product(prepared: Prepared, node: NodeProto, shift: NDArray[np.float64]) -> None:
    """Add to the bias behind a MatMul: into the constant of the Add that follows, or a new Add."""
    output = node.output[0]
    readers = [other for other in prepared.graph.node if output in other.input]
    answers = {item.name for item in prepared.graph.output}
    if len(readers) == 1 and readers[0].op_type == "Add" and output not in answers:
        (reader,) = readers
        for position, name in enumerate(reader.input):
            if prepared.is_constant(name) and (value := prepared.value(name)).ndim and value.shape[-1] == len(shift):
                made = (value.astype(np.float64) + shift).astype(value.dtype)
                reader.input[position] = prepared.add(made, f"{name}_repaired")
                return
    kind = prepared.value(node.input[1]).dtype
    bias = prepared.add(shift.astype(kind), f"{output}_bias")
    node.output[0] = f"{output}_unshifted"
    nodes = list(prepared.graph.node)
    nodes.insert(nodes.index(node) + 1, helper.make_node("Add", [node.output[0], bias], [output], name=f"{output}_Add"))
    copies = [NodeProto.FromString(item.SerializeToString()) for item in nodes]
    del prepared.graph.node[:]
    prepared.graph.node.extend(copies)


def _set(node: NodeProto, name: str, value: float) -> None:
    for item in list(node.attribute):
        if item.name == name:
            node.attribute.remove(item)
    node.attribute.append(helper.make_attribute(name, value))


def patches(node: NodeProto, kernel: Kernel, x: Rows, outputs: tuple[int, ...]) -> NDArray[Any]:
    """What a kernel is multiplied with, one row per output position.

    Args:
        node: of the kernel.
        kernel: its size.
        x: input of the node.
        outputs: shape of the node's output.

    Returns:
        view or array (samples, positions, inputs * rows * columns), in the order of `matrix_of`.
    """
    if node.op_type != "Conv":
        return x.reshape(len(x), -1, x.shape[-1])
    if x.ndim == 3:
        x, outputs = x[:, :, None], (*outputs[:2], 1, outputs[2])
    strides, dilations = (_pair(attribute(node, name, None), (1, 1)) for name in ("strides", "dilations"))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel.size, dilations, strict=True)]
    needed = [(made - 1) * step + far for made, step, far in zip(outputs[2:], strides, reach, strict=True)]
    before = _before(node, [want - size for want, size in zip(needed, x.shape[2:], strict=True)])
    after = [max(0, want - size - first) for want, size, first in zip(needed, x.shape[2:], before, strict=True)]
    padded = np.pad(x, ((0, 0), (0, 0), *zip(before, after, strict=True)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    windows = windows[:, :, : outputs[2], : outputs[3]].transpose(0, 2, 3, 1, 4, 5)
    return windows.reshape(len(x), outputs[2] * outputs[3], -1)


def positions(node: NodeProto, y: Rows) -> NDArray[Any]:
    """Answers of a kernel as (samples, positions, outputs), in the order of `patches`."""
    if node.op_type != "Conv":
        return y.reshape(len(y), -1, y.shape[-1])
    return np.moveaxis(y.reshape(len(y), y.shape[1], -1), 1, 2)


def _before(node: NodeProto, missing: list[int]) -> list[int]:
    """Zeros before the first row and column."""
    mode = attribute(node, "auto_pad", b"NOTSET").decode()
    if mode == "SAME_UPPER":
        return [max(0, count) // 2 for count in missing]
    if mode == "SAME_LOWER":
        return [(max(0, count) + 1) // 2 for count in missing]
    if mode == "VALID":
        return [0, 0]
    pads = list(attribute(node, "pads", [0] * 4))
    return pads[:2] if len(pads) == 4 else [0, pads[0]]


def _pair(values: Any, otherwise: tuple[int, int]) -> tuple[int, int]:
    if values is None:
        return otherwise
    return (1, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))
