"""A small editor for ONNX graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

# Operators that only move values: a tensor on a grid stays on it. Pad only with zeros.
MOVES = {
    "DepthToSpace",
    "Expand",
    "Flatten",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


class Editor:
    """Nodes and constants of a model's main graph by the tensors they make and read."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.outputs = {value.name for value in self.graph.output}
        self._names = {name for node in self.graph.node for name in (*node.input, *node.output)} | set(self.constants)

    def producer(self, tensor: str) -> NodeProto | None:
        """Node that makes a tensor, None for inputs and constants."""
        return next((node for node in self.graph.node if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[NodeProto]:
        """Nodes that read a tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    def only_consumer(self, tensor: str) -> NodeProto | None:
        """The node that reads a tensor, if there is exactly one and the tensor is no output of the graph."""
        readers = self.consumers(tensor)
        return readers[0] if len(readers) == 1 and tensor not in self.outputs else None

    def value(self, tensor: str) -> NDArray[Any] | None:
        """Value of a constant, None if the tensor is none."""
        held = self.constants.get(tensor)
        return None if held is None else numpy_helper.to_array(held)

    def name(self, wish: str) -> str:
        """A tensor name that is not used yet."""
        name, count = wish, 1
        while name in self._names:
            count += 1
            name = f"{wish}_{count}"
        self._names.add(name)
        return name

    def constant(self, value: NDArray[Any], wish: str) -> str:
        """Add a constant and return its name."""
        name = self.name(wish)
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.graph.initializer.append(tensor)
        self.constants[name] = self.graph.initializer[-1]
        return name

    def insert(self, position: NodeProto, *nodes: NodeProto) -> None:
        """Put nodes before a node."""
        index = list(self.graph.node).index(position)
        for offset, node in enumerate(nodes):
            self.graph.node.insert(index + offset, node)

    def remove(self, node: NodeProto) -> None:
        """Take a node out; its readers get what it read."""
        source, target = node.input[0], node.output[0]
        for reader in self.consumers(target):
            for i, name in enumerate(reader.input):
                if name == target:
                    reader.input[i] = source
        self.graph.node.remove(node)

    def pair(self, source: str, scale: str, zero_point: str, position: NodeProto) -> str:
        """Put QuantizeLinear and DequantizeLinear on a tensor before a node; returns the new tensor."""
        stored, real = self.name(f"{source}_q"), self.name(f"{source}_dq")
        self.insert(
            position,
            helper.make_node("QuantizeLinear", [source, scale, zero_point], [stored], name=f"{stored}/QuantizeLinear"),
            helper.make_node("DequantizeLinear", [stored, scale, zero_point], [real], name=f"{real}/DequantizeLinear"),
        )
        return real

    def tidy(self) -> None:
        """Drop nodes and constants that nobody reads."""
        while True:
            read = {name for node in self.graph.node for name in node.input} | self.outputs
            dead = [node for node in self.graph.node if not any(name in read for name in node.output)]
            if not dead:
                break
            for node in dead:
                self.graph.node.remove(node)
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        del self.graph.value_info[:]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Value of an attribute, or the default where it is not set."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return default


def moves_only(editor: Editor, node: NodeProto) -> bool:
    """Whether a node leaves values on their grid."""
    if node.op_type == "Pad":
        mode = attribute(node, "mode", b"constant")
        fill = editor.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        return mode != b"constant" or (fill is not None and not fill.any())
    return node.op_type in MOVES
