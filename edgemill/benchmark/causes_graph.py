"""Questions to the graph that onnxruntime made of a model: who feeds whom, and in which type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
RECTIFIERS = {"Relu", "Clip"}
MOVES = {
    *("Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice"),
    *("Split", "Squeeze", "Transpose", "Unsqueeze"),
}
"""Operators that hand 8-bit values on unchanged."""


class GraphView:
    """The main graph of an optimized model; nodes are known by their index in the profile.

    Attributes:
        nodes: the graph's node of every profiled node, None where it is not in the main graph.
        producer: index of the node that makes a tensor.
        readers: indices of the nodes that read a tensor.
        stored: the constants of the file before it was optimized.
    """

    def __init__(
        self, model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto | None], stored: Sequence[TensorProto] = ()
    ) -> None:
        self.nodes = tuple(nodes)
        self.stored = tuple(stored)
        self.constants: Mapping[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer: dict[str, int] = {}
        self.readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if node is None:
                continue
            self.producer.update(dict.fromkeys(node.output, index))
            for tensor in dict.fromkeys(node.input):
                self.readers.setdefault(tensor, []).append(index)

    def kind(self, index: int | None) -> str:
        """Operator type of a node, empty for none."""
        node = None if index is None else self.nodes[index]
        return "" if node is None else str(node.op_type)

    def inputs(self, index: int) -> list[str]:
        """Inputs of a node in order, empty where one is left out."""
        node = self.nodes[index]
        return [] if node is None else list(node.input)

    def activations(self, index: int) -> list[str]:
        """Inputs of a node that are computed or come from outside, not stored in the model."""
        return [name for name in self.inputs(index) if name and not self.is_constant(name)]

    def consumers(self, index: int) -> list[int]:
        """Nodes that read any output of a node."""
        node = self.nodes[index]
        return [] if node is None else [reader for name in node.output for reader in self.readers.get(name, [])]

    def sources(self, index: int) -> list[int]:
        """Nodes that make the inputs of a node."""
        return [self.producer[name] for name in self.inputs(index) if name in self.producer]

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the model, possibly behind a dequantization."""
        if name in self.constants:
            return True
        index = self.producer.get(name)
        return (
            index is not None and self.kind(index) in {QUANTIZE, DEQUANTIZE} and self.is_constant(self.inputs(index)[0])
        )

    def attribute(self, index: int, name: str) -> Any:
        """Value of a node's attribute, None where it has none; text as str."""
        node = self.nodes[index]
        for attribute in [] if node is None else node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return None

    def value(self, name: str) -> NDArray[Any] | None:
        """Values of a stored tensor, None if it is not stored or not in this file."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def stored_type(self, name: str) -> str | None:
        """numpy name of the element type of a stored tensor, None if it is not stored."""
        tensor = self.constants.get(name)
        return None if tensor is None else np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type)).name

    def integer_type(self, index: int) -> str | None:
        """Type of the integers of a QuantizeLinear or DequantizeLinear, None where it is not to be seen."""
        inputs = self.inputs(index)
        if len(inputs) > 2 and inputs[2]:
            return self.stored_type(inputs[2])
        if self.kind(index) == QUANTIZE:
            chosen = self.attribute(index, "output_dtype")
            return np.dtype(helper.tensor_dtype_to_np_dtype(chosen)).name if chosen else "uint8"
        stored = self.stored_type(inputs[0])
        return stored or self._type_from_source(inputs[0])

    def zero_point(self, index: int) -> int | None:
        """Zero point of a QuantizeLinear with one scale, None where it is not stored."""
        inputs = self.inputs(index)
        if len(inputs) <= 2 or not inputs[2]:
            return 0
        value = self.value(inputs[2])
        return int(value.ravel()[0]) if value is not None and value.size == 1 else None

    def dequantizers(self, index: int) -> dict[str, int]:
        """The activation inputs of a node that come from a DequantizeLinear, with that node."""
        return {
            name: self.producer[name]
            for name in self.activations(index)
            if self.kind(self.producer.get(name)) == DEQUANTIZE
        }

    @cached_property
    def has_integers(self) -> bool:
        """Whether anything in the graph is quantized to integers."""
        kinds = {node.op_type for node in self.nodes if node is not None}
        return any(kind.startswith("QLinear") or "Integer" in kind or "Quantize" in kind for kind in kinds)

    def _type_from_source(self, name: str) -> str | None:
        for _ in range(len(self.nodes)):
            index = self.producer.get(name)
            if index is None:
                return None
            if self.kind(index) == QUANTIZE:
                return self.integer_type(index)
            if self.kind(index) not in MOVES:
                return None
            name = self.inputs(index)[0]
        return None
