"""The state of one rebuild of an ONNX graph: constants, values, names, and the layers that only move data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgemill.ingest.bridge_layers import CannotBridgeError
from edgemill.ingest.graph import OPSET
from edgemill.ingest.onnx_bridge_layout import Value, channels_last_order, identity, inverse
from edgemill.tf import keras

# Stands for the batch size in computations of shapes: no real axis has this size by chance.
BATCH_SIZE = 7919
_MOVES = {"Squeeze", "Unsqueeze", "Transpose", "Reshape", "Flatten", "Identity", "Dropout", "Cast"}
_AFFINE = {"Add", "Sub", "Mul", "Div"}

Affine = tuple[NDArray[np.float64], NDArray[np.float64]]


class Graph:
    """An ONNX graph while it is rebuilt.

    Attributes:
        constants: tensors that do not depend on the input's values, by name.
        of_batch: names of those constants that depend on the number of samples.
        values: tensors that do depend on the input, by name.
        trained: names of tensors with a layer with weights before them.
        nonnegative: names of tensors that are never below 0.
        absorbed: ids of nodes whose work a layer before them does.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.outputs = [value.name for value in model.graph.output]
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.of_batch: set[str] = set()
        self.values: dict[str, Value] = {}
        self.trained: set[str] = set()
        self.nonnegative: set[str] = set()
        self.absorbed: set[int] = set()
        self._names: set[str] = set()
        self._moved: dict[tuple[int, tuple[int | None, ...]], tuple[Any, Any]] = {}
        self.link()
        for node in self.nodes:
            if node.op_type == "Constant" or (node.input and self.is_constant(node)):
                self.fold(node)
        parts = [[part for part in node.name.split("/") if part] for node in self.nodes if "/" in node.name]
        self._prefix = parts[0][0] if parts and all(p[0] == parts[0][0] and len(p) > 2 for p in parts) else None

    def link(self) -> None:
        """Note who reads what, after the nodes have changed."""
        self.readers: dict[str, list[NodeProto]] = {}
        self.makers = {name: node for node in self.nodes for name in node.output if name}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    # --- constants ------------------------------------------------------------------------------

    def is_constant(self, node: NodeProto) -> bool:
        """Whether no input of the node depends on the model's input."""
        return not node.op_type.startswith(("Random", "Bernoulli", "Multinomial")) and all(
            name in self.constants for name in node.input if name
        )

    def fold(self, node: NodeProto) -> None:
        """Compute a node with constant inputs."""
        feeds = {name: self.constants[name] for name in node.input if name}
        try:
            answers = ReferenceEvaluator(node, opsets={"": OPSET}).run(None, feeds)
        except Exception as error:  # the evaluator raises anything on what it does not know
            raise CannotBridgeError(f"its constant value cannot be computed: {error}"[:200]) from error
        self.constants |= {name: np.asarray(answer) for name, answer in zip(node.output, answers, strict=False) if name}
        if self.of_batch & set(node.input):
            self.of_batch |= set(node.output)

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant that is the same for any number of samples, None for a tensor that is not constant.

        Raises:
            CannotBridgeError: it depends on the number of samples.
        """
        if name in self.of_batch:
            raise CannotBridgeError("computes with the batch size")
        return self.constants.get(name)

    def weight(self, node: NodeProto, index: int, what: str = "weights") -> NDArray[Any]:
        """An operand that must be constant."""
        value = self.constant(node.input[index])
        if value is None:
            raise CannotBridgeError(f"its {what} are computed from the input")
        return value

    def sizes(self, node: NodeProto, index: int) -> list[int] | None:
        """An operand that tells sizes, with BATCH_SIZE for the batch; None where the node has no such operand."""
        if len(node.input) <= index or not node.input[index]:
            return None
        if node.input[index] not in self.constants:
            raise CannotBridgeError("its shape is computed from the input's values")
        return [int(size) for size in self.constants[node.input[index]].reshape(-1)]

    # --- values ---------------------------------------------------------------------------------

    def value(self, node: NodeProto, index: int = 0) -> Value:
        """An operand that depends on the input."""
        name = node.input[index]
        if name not in self.values:
            raise CannotBridgeError("computes with a constant where a tensor is expected")
        if self.values[name].indices:
            raise CannotBridgeError("computes with integers")
        return self.values[name]

    def arranged(self, value: Value, order: Sequence[int], name: str) -> Any:
        """The Keras tensor whose axis j is the ONNX axis order[j]; moved only if it must be.

        Args:
            value: the tensor.
            order: all its ONNX axes, the batch first.
            name: prefix of the layers' names.
        """
        if value.flat:
            value = self.resolved(value, name)
        tensor, shape = value.tensor, value.shape
        places = tuple(value.axes[i] for i in order)
        if places == tuple(range(len(tensor.shape))):
            return tensor
        key = (id(tensor), places)
        if key not in self._moved:
            self._moved[key] = tensor, self._move(tensor, places, tuple(shape[i] for i in order)[1:], name)
        return self._moved[key][1]

    def _move(self, tensor: Any, places: tuple[int | None, ...], target: tuple[int | None, ...], name: str) -> Any:
        held = [axis for axis in places if axis is not None]
        spare = [axis for axis in range(len(tensor.shape)) if axis not in held]
        solid = [axis for axis in held if tensor.shape[axis] != 1]
        move = solid != sorted(solid) or (target.count(None) > 1 and not spare)
        if move and held + spare != list(range(len(tensor.shape))):
            tensor = self.layer("Permute", f"{name}_order", tuple([*held, *spare][1:]))(tensor)
        return self.reshaped(tensor, target, name)

    def reshaped(self, tensor: Any, target: Sequence[int | None], name: str) -> Any:
        """The tensor with another shape (without batch), its values in the same order."""
        if tuple(tensor.shape[1:]) == tuple(target):
            return tensor
        if list(target).count(None) > 1:
            raise CannotBridgeError("reshapes several free sizes")
        if len(target) == 1:
            return self.layer("Flatten", f"{name}_flatten")(tensor)
        return self.layer("Reshape", f"{name}_reshape", tuple(-1 if size is None else size for size in target))(tensor)

    def resolved(self, value: Value, name: str) -> Value:
        """The value, really flattened where ONNX sees it so."""
        if not value.flat:
            return value
        whole = Value(value.tensor, value.axes)
        tensor = self.arranged(whole, range(whole.rank), name)
        return identity(self.layer("Flatten", f"{name}_flatten")(tensor))

    def channels_last(self, value: Value, name: str) -> Any:
        """Keras tensor (N, ..., C) of an ONNX tensor (N, C, ...)."""
        return self.arranged(value, channels_last_order(value.rank), name)

    def together(self, values: list[Value], name: str, needed: int | None = None) -> tuple[list[Any], Value]:
        """Keras tensors with one layout for several ONNX tensors of one rank, and a value that has it.

        Args:
            values: the tensors.
            name: prefix of names.
            needed: an ONNX axis that must really be there.
        """
        if len({value.rank for value in values}) > 1:
            raise CannotBridgeError(f"joins tensors of ranks {', '.join(str(value.rank) for value in values)}")
        first = values[0]
        same = all((value.axes, value.flat) == (first.axes, first.flat) for value in values)
        ranks = {len(value.tensor.shape) for value in values}
        whole = needed is None or (first.position(needed) is not None and not first.flat)
        if same and whole and len(ranks) == 1:
            return [value.tensor for value in values], first
        full = [v for v in values if not v.flat and None not in v.axes and len(v.tensor.shape) == v.rank]
        leaders = [value for value in full if not value.ordered] + full
        rank = first.rank
        order = inverse([int(axis or 0) for axis in leaders[0].axes]) if leaders else tuple(range(rank))
        tensors = [self.arranged(value, order, f"{name}_{i}") for i, value in enumerate(values)]
        return tensors, Value(tensors[0], inverse(order))

    # --- arithmetic with constants --------------------------------------------------------------

    def only_reader(self, name: str) -> NodeProto | None:
        """The one node that reads a tensor; None if there are several or it is an output."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def is_last_use(self, name: str) -> bool:
        """Whether the Keras tensor behind an ONNX tensor is read by one node only, whatever axes ONNX moved."""
        tensor = self.values[name].tensor
        while self.only_reader(name) is not None and (node := self.makers.get(name)) is not None:
            source = node.input[0] if node.op_type in _MOVES else ""
            if source not in self.values or self.values[source].tensor is not tensor:
                return node.op_type not in _MOVES
            name = source
        return False

    def affine(self, node: NodeProto, source: str) -> Affine | None:
        """(scale, offset) if the node computes scale * source + offset with constants, else None."""
        if node.op_type not in _AFFINE or len(node.input) != 2 or node.input[0] == node.input[1]:
            return None
        first = node.input[0] == source
        other = self.constant(node.input[1 if first else 0])
        if other is None or other.size == 0:
            return None
        number = np.asarray(other, np.float64)
        one, zero = np.ones(()), np.zeros(())
        match node.op_type:
            case "Add":
                return one, number
            case "Sub":
                return (one, -number) if first else (-one, number)
            case "Mul":
                return number, zero
        return (1 / number, zero) if first and number.all() else None

    def absorb(self, node: NodeProto, fits: Any) -> tuple[Affine, NodeProto]:
        """Arithmetic with constants behind a node that a layer can do itself, and the last node of it.

        Args:
            node: whose first output is followed.
            fits: of an array, whether it may be part of the layer.
        """
        scale, offset = np.ones(()), np.zeros(())
        while (reader := self.only_reader(node.output[0])) is not None:
            found = self.affine(reader, node.output[0])
            if found is None or not all(fits(item) for item in found):
                break
            scale, offset = scale * found[0], offset * found[0] + found[1]
            node = reader
            self.absorbed.add(id(node))
        return (scale, offset), node

    # --- layers ---------------------------------------------------------------------------------

    def label(self, node: NodeProto) -> str:
        """What a layer made of a node is called: after the layer that an exporter made the node of."""
        if node.output[0] in self.outputs:
            return str(node.output[0])
        parts = [part for part in node.name.split("/") if part and part != self._prefix]
        return "_".join(parts[:-1] or parts) or node.op_type.lower()

    def layer(self, kind: str, name: str, *args: Any, **settings: Any) -> Any:
        """A Keras layer with a name of its own."""
        return getattr(keras.layers, kind)(*args, name=self.reserve(name), **settings)

    def reserve(self, name: str) -> str:
        """A name that no layer has yet and that TensorFlow accepts."""
        clean = "".join(c if c.isalnum() or c in "_.-" else "_" for c in name).strip("_.-") or "layer"
        candidate, number = clean, 1
        while candidate in self._names:
            candidate = f"{clean}_{number}"
            number += 1
        self._names.add(candidate)
        return candidate


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, text as str, or its default."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode() if isinstance(value, bytes) else list(value) if isinstance(default, list) else value
    return default
