"""Parameters and multiply-accumulates of an fp32 ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgemill.errors import ToolchainError

Shape = tuple[int, ...]
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", *_GATES)


@dataclass(frozen=True)
class NodeCount:
    """One node that multiplies.

    Attributes:
        macs: multiply-accumulates for one sample; bias and activation are not counted.
        parameters: elements of the weights and biases that enter this node.
    """

    name: str
    operator: str
    output_shape: Shape
    macs: int
    parameters: int


@dataclass(frozen=True)
class Counts:
    """Size of a model.

    Attributes:
        parameters: elements of all floating-point initializers.
        macs: for one sample.
        nodes: those that multiply, in graph order.
        uncounted: names of nodes with a subgraph (Loop, If, Scan), whose work is not in `macs`.
    """

    parameters: int
    macs: int
    nodes: tuple[NodeCount, ...]
    uncounted: tuple[str, ...]


def count(model: onnx.ModelProto, sample_shape: Shape | None = None) -> Counts:
    """Count for batch size 1.

    Args:
        model: fp32 graph with one input that is not an initializer.
        sample_shape: shape of one sample; needed where the model leaves a dimension free.

    Raises:
        ToolchainError: a shape cannot be found, neither by inference nor by running the graph.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = _shapes(model, stored, sample_shape)
    nodes = tuple(
        NodeCount(
            name=node.name,
            operator=node.op_type,
            output_shape=_shape_of(shapes, node, node.output[0]),
            macs=_macs(node, shapes),
            parameters=sum(math.prod(stored[name].dims) for name in set(node.input) if name in stored),
        )
        for node in model.graph.node
        if node.op_type in COUNTED
    )
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    constants = [
        attribute.t
        for node in model.graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    parameters = sum(math.prod(t.dims) for t in (*stored.values(), *constants) if t.data_type in kinds)
    nested = tuple(n.name for n in model.graph.node if any(a.HasField("g") or a.graphs for a in n.attribute))
    return Counts(parameters, sum(node.macs for node in nodes), nodes, nested)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    first = _shape_of(shapes, node, node.input[0])
    second = _shape_of(shapes, node, node.input[1])
    output = _shape_of(shapes, node, node.output[0]) if node.op_type not in _GATES else ()
    if node.op_type == "Conv":  # weight: (out, in / groups, *kernel)
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":  # weight: (in, out / groups, *kernel)
        return math.prod(first) * math.prod(second[1:])
    if node.op_type in _GATES:  # X: (time, batch, in), W: (directions, gates * hidden, in), R: (..., hidden)
        time, batch, size = first
        directions, rows = second[0], second[1]
        return time * batch * directions * rows * (size + rows // _GATES[node.op_type])
    if node.op_type == "Gemm":
        transposed = next((a.i for a in node.attribute if a.name == "transA"), 0)
        return math.prod(output) * first[0 if transposed else 1]
    return math.prod(output) * first[-1]


def _shape_of(shapes: Mapping[str, Shape], node: onnx.NodeProto, name: str) -> Shape:
    if name not in shapes and node.op_type in _GATES:
        return ()
    try:
        return shapes[name]
    except KeyError:
        raise ToolchainError(
            "The shape of a tensor is unknown.", where=f"{node.op_type} {node.name!r}", got=name
        ) from None


def _shapes(model: onnx.ModelProto, stored: Mapping[str, Any], sample_shape: Shape | None) -> dict[str, Shape]:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    source = next(value for value in fixed.graph.input if value.name not in stored)
    dims = source.type.tensor_type.shape.dim
    for axis, dim in enumerate(dims):
        if axis == 0:
            dim.dim_value = 1
        elif sample_shape is not None:
            dim.dim_value = sample_shape[axis - 1]
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    shapes: dict[str, Shape] = {name: tuple(tensor.dims) for name, tensor in stored.items()}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = next(
                (numpy_helper.to_array(a.t).shape for a in node.attribute if a.name == "value"), ()
            )
    wanted = [n for node in model.graph.node if node.op_type in COUNTED for n in (*node.input[:2], node.output[0]) if n]
    missing = sorted({name for name in wanted if name not in shapes})
    if missing:
        shapes |= _run(fixed, source, missing)
    return shapes


def _run(model: onnx.ModelProto, source: onnx.ValueInfoProto, missing: list[str]) -> dict[str, Shape]:
    """Shapes of tensors that inference did not find, from one inference on zeros."""
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    if 0 in shape:
        raise ToolchainError(
            "The model leaves a dimension free.",
            where=f"input {source.name!r}",
            got=str(shape),
            remedy="count with the shape of a sample",
        )
    present = {value.name for value in model.graph.output}
    for name in missing:
        if name not in present:
            model.graph.output.append(helper.make_empty_tensor_value_info(name))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        x = np.zeros(shape, helper.tensor_dtype_to_np_dtype(source.type.tensor_type.elem_type))
        answers = session.run(missing, {source.name: x})
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise ToolchainError("Shapes cannot be found by running the graph.", got=str(error)[:1000]) from error
    return {name: answer.shape for name, answer in zip(missing, answers, strict=True)}
