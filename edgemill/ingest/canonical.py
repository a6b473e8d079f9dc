"""One ONNX text for one computation.

A converter counts its names in variables of the process and walks through sets, so that the same model
gets other names, another order and so another digest in every conversion. Here the order comes from the
graph alone, and every name from the order.
"""

from __future__ import annotations

import re

import onnx

# Nodes that only move values about are named after their operator: converters merge equal ones and keep
# the name of either.
_MOVES = {
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Range", "Reshape",
    "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
_ROLES = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("weight", "weight"),
    "LSTM": ("", "weight", "recurrent_weight", "bias"),
    "GRU": ("", "weight", "recurrent_weight", "bias"),
}
_COUNTER = re.compile(r"__\d+(?=$|:)")


def canonicalize(model: onnx.ModelProto) -> None:
    """Order and name nodes, tensors and weights by the structure of the graph, in place.

    Names of inputs and outputs stay, and so do names of nodes that compute, up to a converter's counter.
    Nodes that nothing needs are dropped. A graph with subgraphs (Loop, If, Scan) is left as it is.
    """
    graph = model.graph
    graph.name = "model"
    graph.doc_string = ""
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    nodes = _in_order(graph)
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    used = set(names)
    kept: list[onnx.TensorProto] = []
    for node in nodes:
        base = node.op_type if node.op_type in _MOVES or not node.name else _COUNTER.sub("", node.name)
        node.name = _unused(base, used)
        for index, name in enumerate(node.input):
            if name in stored and name not in names:
                names[name] = _unused(f"{node.name}.{_role(node, index)}", used)
                kept.append(stored[name])
        node.input[:] = [names.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if name and name not in names:
                names[name] = _unused(f"{node.name}:{index}", used)
        node.output[:] = [names.get(name, name) for name in node.output]
        node.ClearField("doc_string")
        if node.domain in ("", "ai.onnx"):
            node.ClearField("domain")
    kept += [stored[value.name] for value in graph.output if value.name in stored]
    for tensor in kept:
        tensor.name = names[tensor.name]
        tensor.doc_string = ""
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.initializer[:]
    del graph.node[:]
    graph.initializer.extend(copies)
    graph.node.extend(ordered)


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes that the outputs need, each behind what it needs, operands from left to right."""
    makers = {name: node for node in graph.node for name in node.output if name}
    order: list[onnx.NodeProto] = []
    done: set[int] = set()
    stack = [(makers[value.name], False) for value in reversed(graph.output) if value.name in makers]
    while stack:
        node, ready = stack.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            order.append(node)
            continue
        stack.append((node, True))
        stack.extend((makers[name], False) for name in reversed(node.input) if name in makers)
    return order


def _role(node: onnx.NodeProto, index: int) -> str:
    roles = _ROLES.get(node.op_type, ())
    return roles[index] if index < len(roles) and roles[index] else f"operand_{index}"


def _unused(name: str, used: set[str]) -> str:
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}_{number}"
    used.add(candidate)
    return candidate
