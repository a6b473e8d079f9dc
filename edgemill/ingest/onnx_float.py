"""Half and double precision ONNX graphs in fp32, and a float32 input in front of any other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OTHER = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
# Attributes that name an element type.
_TYPE_ATTRIBUTES = {"to", "dtype", "output_datatype"}


def to_float32(model: onnx.ModelProto) -> bool:
    """Turn every other floating-point type of a graph into float32, in place. Returns whether there was one."""
    changed = False
    for graph in _graphs(model.graph):
        for tensor in graph.initializer:
            changed |= _convert(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor_type = value.type.tensor_type
            if tensor_type.elem_type in _OTHER:
                tensor_type.elem_type = TensorProto.FLOAT
                changed = True
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    changed |= _convert(attribute.t)
                elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in _OTHER:
                    attribute.i = TensorProto.FLOAT
                    changed = True
    return changed


def with_float_input(model: onnx.ModelProto) -> bool:
    """Let an integer input be given as float32, in place: a Cast in front. Returns whether it was needed."""
    value = model.graph.input[0]
    kind = value.type.tensor_type.elem_type
    if kind == TensorProto.FLOAT:
        return False
    inner = f"{value.name}_as_integer"
    for graph in _graphs(model.graph):
        for node in graph.node:
            node.input[:] = [inner if name == value.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Cast", [value.name], [inner], name=inner, to=kind))
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    return True


def _convert(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type not in _OTHER:
        return False
    values = numpy_helper.to_array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return True


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
            for inner in attribute.graphs:
                yield from _graphs(inner)
