"""Which tensors QuantizeLinear and DequantizeLinear nodes quantize, and how: what vendors' rules are checked on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper, shape_inference

from edgemill.errors import ToolchainError

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
OUTPUT_AXIS = {"Conv": (0,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (-1,)}
"""By product: axes of its weights that can be those of the output channels; of Gemm it depends on transB."""

_WEIGHTS, _BIAS = 1, 2


class Role(StrEnum):
    """What a quantized tensor is."""

    ACTIVATION = "activation"
    WEIGHT = "weight"
    BIAS = "bias"
    CONSTANT = "constant"
    """A constant that is neither, e.g. of an addition."""


@dataclass(frozen=True)
class Quantized:
    """One QuantizeLinear or DequantizeLinear node.

    Attributes:
        node: the node.
        role: what it quantizes.
        scale: float, a scalar or one for every channel.
        zero: zero points as int64, of the shape of `scale`.
        dtype: numpy name of the stored type.
        users: nodes that read the result of a DequantizeLinear, with the number of the input.
    """

    node: NodeProto
    role: Role
    scale: NDArray[np.floating]
    zero: NDArray[np.int64]
    dtype: str
    users: tuple[tuple[NodeProto, int], ...]

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.role} {self.node.input[0]}"

    @property
    def per_channel(self) -> bool:
        """Whether channels have scales of their own."""
        return self.scale.size > 1

    @property
    def axis(self) -> int:
        """Axis of the channels."""
        return next((attribute.i for attribute in self.node.attribute if attribute.name == "axis"), 1)


def constants_of(graph: GraphProto) -> dict[str, TensorProto]:
    """Initializers and values of Constant nodes, by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def users_of(graph: GraphProto) -> dict[str, list[tuple[NodeProto, int]]]:
    """By tensor, the nodes that read it, with the number of the input."""
    found: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            found.setdefault(name, []).append((node, index))
    return found


def read_quantized(model: ModelProto) -> list[Quantized]:
    """All QuantizeLinear and DequantizeLinear nodes of a graph.

    Raises:
        ToolchainError: a scale or a zero point is not constant.
    """
    constants, users = constants_of(model.graph), users_of(model.graph)
    return [
        _read(node, constants, tuple(users.get(node.output[0], ())))
        for node in model.graph.node
        if node.op_type in (QUANTIZE, DEQUANTIZE)
    ]


def _read(node: NodeProto, constants: Mapping[str, TensorProto], users: tuple[tuple[NodeProto, int], ...]) -> Quantized:
    missing = [name for name in node.input[1:3] if name and name not in constants]
    if missing:
        raise ToolchainError(
            "A scale or zero point of the model is not constant.",
            where=f"{node.op_type} {node.name or node.output[0]}",
            got=", ".join(missing),
        )
    scale = numpy_helper.to_array(constants[node.input[1]])
    stored = constants.get(node.input[2]) if len(node.input) > _BIAS else None
    zero = np.zeros(scale.shape, np.int64) if stored is None else numpy_helper.to_array(stored).astype(np.int64)
    kind = TensorProto.UINT8 if stored is None else stored.data_type
    own = constants.get(node.input[0])
    if stored is None and own is not None:
        kind = own.data_type
    role = Role.ACTIVATION if own is None else _role_of_constant(kind, users)
    return Quantized(node, role, scale, zero, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name, users)


def _role_of_constant(kind: int, users: tuple[tuple[NodeProto, int], ...]) -> Role:
    if kind == TensorProto.INT32:
        return Role.BIAS
    feeds = {index for node, index in users if node.op_type in OUTPUT_AXIS}
    return Role.WEIGHT if _WEIGHTS in feeds else Role.BIAS if _BIAS in feeds else Role.CONSTANT


def with_batch(model: ModelProto, batch: int, where: str) -> ModelProto:
    """A copy of a graph for exactly `batch` samples at once, with the shapes of all tensors in it.

    Raises:
        ToolchainError: another dimension than the first is free too, or the graph does not allow it.
    """
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = batch
    try:
        fixed = shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises its own classes and plain RuntimeError
        raise ToolchainError(
            "The shapes of the model cannot be fixed.", where=where, got=" ".join(str(error).split())[:300]
        ) from error
    if free := free_shapes(fixed):
        raise ToolchainError(
            "The model has dimensions that are not known before it runs.",
            where=where,
            expected="a free first dimension only, the batch",
            got=", ".join(free[:10]),
            remedy="export the model with fixed sizes",
        )
    return fixed


def free_shapes(model: ModelProto) -> list[str]:
    """Inputs and outputs with a dimension that is not a number, as `name [sizes]`."""
    found = []
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.tensor_type
        sizes = [dim.dim_value or dim.dim_param or "?" for dim in kind.shape.dim]
        if not kind.HasField("shape") or not all(isinstance(size, int) for size in sizes):
            found.append(f"{value.name} {sizes}")
    return found


def add_constant(model: ModelProto, name: str, values: NDArray[np.generic]) -> str:
    """Add an initializer, and return its name: the one that is asked for, or a longer one where that is taken."""
    graph = model.graph
    taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    taken |= {output for node in graph.node for output in node.output}
    while name in taken:
        name += "_"
    graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def drop_unused(model: ModelProto) -> None:
    """Remove nodes without a reader and constants that nothing reads, in place."""
    outputs = {value.name for value in model.graph.output}
    while True:
        read = {name for node in model.graph.node for name in node.input} | outputs
        kept = [node for node in model.graph.node if read.intersection(node.output)]
        if len(kept) == len(model.graph.node):
            break
        del model.graph.node[:]
        model.graph.node.extend(kept)
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
