"""Shapes of the tensors of a graph, and who reads their values."""

from __future__ import annotations

import onnx
from onnx import NodeProto

RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
Shape = tuple[int | str | None, ...]
_SHAPE_ONLY = {"Shape", "Size"}


def shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of the tensors that shape inference finds; free dimensions have a name or None."""
    known: dict[str, Shape] = {}
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        graph = model.graph
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            known[value.name] = tuple(
                size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in kind.shape.dim
            )
    return known


def value_readers(model: onnx.ModelProto) -> dict[str, list[NodeProto]]:
    """Nodes that read a tensor's values, each once, by tensor; its shape alone does not count."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input if node.op_type not in _SHAPE_ONLY else ()):
            found.setdefault(name, []).append(node)
    return found


def keeps_last(before: Shape, after: Shape) -> bool:
    """Whether a reshape between these shapes leaves the last dimension as it is."""
    return bool(before and after and before[-1]) and isinstance(before[-1], int) and before[-1] == after[-1]
