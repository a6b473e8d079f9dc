"""Operators that multiply their input by constant weights, in one matrix form.

Conv (any group count, one to three dimensions), Gemm and MatMul all compute, for every group g and every position,
`y[g, o] = sum over k of w[g, o, k] * a[g, k]`, where a is what the kernel sees at the position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from edgemill.quantize.onnx_graph import attribute

KINDS = ("Conv", "Gemm", "MatMul")
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Linear:
    """A node with constant weights.

    Attributes:
        name: of the node, or of its output where it has none.
        node: the operator.
        shape: of the weights as they are stored.
        groups: number of groups; as many as channels in a depthwise convolution.
        transposed: whether stored weights are (inputs, outputs).
    """

    name: str
    node: NodeProto
    shape: tuple[int, ...]
    groups: int
    transposed: bool

    @property
    def convolution(self) -> bool:
        """Whether channels are in dimension 1 instead of the last."""
        return bool(self.node.op_type == "Conv")

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return (self.shape[0] if self.transposed else self.shape[1]) * self.groups

    @property
    def output_axis(self) -> int:
        """Dimension of the stored weights that counts output channels."""
        return 1 if self.transposed else 0

    def matrix(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Stored weights as (groups, outputs of a group, inputs of a group times kernel)."""
        rows = weight.T if self.transposed else weight
        return rows.reshape(self.groups, self.outputs // self.groups, -1)

    def stored(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Inverse of `matrix`."""
        if self.transposed:
            return np.ascontiguousarray(matrix.reshape(self.outputs, -1).T)
        return matrix.reshape(self.shape)

    def output_ranges(self, weight: Floats) -> Floats:
        """Largest magnitude among the weights that make an output channel, (outputs,)."""
        ranges: Floats = np.abs(self.matrix(weight)).max(axis=2, initial=0.0).reshape(-1)
        return ranges

    def input_ranges(self, weight: Floats) -> Floats:
        """Largest magnitude among the weights that read an input channel, (inputs,)."""
        ranges: Floats = np.abs(self._by_input(weight)).max(axis=(1, 3), initial=0.0).reshape(-1)
        return ranges

    def scale_outputs(self, weight: Floats, by: Floats) -> Floats:
        """Weights with every output channel multiplied by its factor, (outputs,)."""
        return self.stored(self.matrix(weight) * by.reshape(self.groups, -1, 1))

    def scale_inputs(self, weight: Floats, by: Floats) -> Floats:
        """Weights with what reads an input channel multiplied by its factor, (inputs,)."""
        scaled = self._by_input(weight) * by.reshape(self.groups, 1, -1, 1)
        return self.stored(scaled.reshape(self.groups, scaled.shape[1], -1))

    def _by_input(self, weight: Floats) -> Floats:
        matrix = self.matrix(weight)
        return matrix.reshape(*matrix.shape[:2], self.inputs // self.groups, -1)


def label(node: NodeProto) -> str:
    """Name of a node, or of its output where it has none."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


def linear(node: NodeProto, shape: tuple[int, ...]) -> Linear | str:
    """View of a node, or why there is none.

    Args:
        node: of one of `KINDS`.
        shape: of its constant second input.
    """
    name = label(node)
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        if len(shape) < 3 or groups < 1 or shape[0] % groups:
            return f"its weights have the shape {list(shape)}"
        return Linear(name, node, shape, groups, False)
    if len(shape) != 2:
        return f"its weights have {len(shape)} dimensions"
    if node.op_type == "MatMul":
        return Linear(name, node, shape, 1, True)
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return "Gemm with transA, alpha or beta"
    return Linear(name, node, shape, 1, not attribute(node, "transB", 0))
