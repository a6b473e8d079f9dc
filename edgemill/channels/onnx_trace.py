"""What is known while the channels of an ONNX graph are followed node by node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgemill.channels.atoms import Indices
from edgemill.channels.book import Book, CannotFollowError, Cut, Flow, Role, Use
from edgemill.channels.cost import LayerShape
from edgemill.channels.onnx_prepare import Prepared, Shape


@dataclass(frozen=True)
class NodeRef:
    """A node of the graph.

    Attributes:
        name: unique.
        index: among the graph's nodes.
    """

    name: str
    index: int


@dataclass(frozen=True)
class SizeFix:
    """A size that stands in a node and changes with the channels.

    Attributes:
        node: whose size it is.
        kind: `group` (attribute of a convolution), or `constant` (an entry of a constant input).
        position: of the constant input; 0 for an attribute.
        entry: index in the constant; 0 for an attribute.
        atoms: channels that are counted.
    """

    node: NodeRef
    kind: str
    position: int
    entry: int
    atoms: Indices


class Trace:
    """Flows of all tensors, and what was found; the rules write into it.

    Attributes:
        book: atoms, cuts and uses. The layer of a cut is a `NodeRef`, its attribute the position of the input.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.book = Book()
        self.atoms = self.book.atoms
        self.fixes: list[SizeFix] = []
        self._flows: dict[str, Flow] = {}

    # Values and shapes

    def shape(self, tensor: str) -> Shape:
        """Sizes of a tensor for a batch of one.

        Raises:
            CannotFollowError: they are not known before it runs.
        """
        shape = self.prepared.shapes.get(tensor)
        if shape is None:
            raise CannotFollowError(f"the sizes of {tensor} are known at run time only")
        return shape

    def constant(self, node: NodeProto, position: int) -> NDArray[Any] | None:
        """Value of a constant input; None where there is no such input.

        Raises:
            CannotFollowError: it is computed.
        """
        if position >= len(node.input) or not node.input[position]:
            return None
        if not self.prepared.is_constant(node.input[position]):
            raise CannotFollowError(f"input {position} of {title(node)} is computed at run time")
        return self.prepared.value(node.input[position])

    def activations(self, node: NodeProto) -> list[int]:
        """Positions of the inputs that are computed from the model's input."""
        return [i for i, name in enumerate(node.input) if name and not self.prepared.is_constant(name)]

    # Flows

    def flow(self, tensor: str) -> Flow:
        """Where the channels of a tensor lie."""
        if tensor not in self._flows:
            self._flows[tensor] = self.whole(tensor, "they are not made by a layer with weights")
        return self._flows[tensor]

    def on_axis(self, tensor: str, axis: int, node: NodeProto) -> Indices:
        """Channels along one axis of a tensor; what lies along another stays whole."""
        flow = self.flow(tensor)
        size = self.shape(tensor)[axis]
        if flow.axis == axis and len(flow.atoms) == size:
            return flow.atoms
        self.atoms.freeze(flow.atoms, f"{title(node)} works across them")
        return self.atoms.new(size, f"{title(node)} reads another axis")

    def goes_on(self, tensor: str, axis: int, atoms: Indices) -> None:
        """Note where the channels of a new tensor lie.

        Raises:
            CannotFollowError: the tensor has another size there.
        """
        shape = self.shape(tensor)
        if axis >= len(shape) or shape[axis] != len(atoms):
            raise CannotFollowError(f"{tensor} does not have the {len(atoms)} channels that were followed to it")
        self._flows[tensor] = Flow(axis, atoms)

    def whole(self, tensor: str, reason: str) -> Flow:
        """Channels of a tensor that are never removed."""
        shape = self.prepared.shapes.get(tensor) or ()
        axis = min(1, max(0, len(shape) - 1))
        return Flow(axis, self.atoms.new(shape[axis] if shape else 1, reason))

    def stop(self, node: NodeProto, reason: str) -> None:
        """Leave whole whatever goes into a node, and what comes out of it."""
        for position in self.activations(node):
            self.atoms.freeze(self.flow(node.input[position]).atoms, reason)
        for name in node.output:
            if name:
                self._flows[name] = self.whole(name, reason)

    # Findings

    def cut(self, node: NodeRef, position: int, axis: int, role: Role, atoms: Indices) -> None:
        """Note that an axis of a constant lies along these channels."""
        self.book.cuts.append(Cut(node, str(position), axis, role, atoms))

    def cut_bias(self, node: NodeProto, ref: NodeRef, position: int, atoms: Indices) -> None:
        """Note a bias, where there is one.

        Raises:
            CannotFollowError: it is computed.
        """
        if self.constant(node, position) is not None:
            self.cut(ref, position, 0, Role.FOLLOWS, atoms)

    def use(self, node: NodeRef, shape: LayerShape, inputs: Indices, outputs: Indices, groups: int = 1) -> None:
        """Note what a kernel costs."""
        self.book.uses.append(Use(node, shape, inputs, outputs, groups))

    def fix(self, node: NodeRef, kind: str, position: int, entry: int, atoms: Indices) -> None:
        """Note a size to be changed."""
        self.fixes.append(SizeFix(node, kind, position, entry, atoms))


def title(node: NodeProto) -> str:
    """A node for the reader."""
    return f"{node.name or (node.output[0] if node.output else '?')} ({node.op_type})"


def attribute(node: NodeProto, name: str, otherwise: Any) -> Any:
    """Value of an attribute of a node."""
    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return otherwise


def moved(flow: Flow, shape: Shape, change: Any) -> Flow | None:
    """Where channels lie after an operation that only moves values.

    The operation is done on the channels' numbers themselves.

    Args:
        flow: before.
        shape: of the tensor before.
        change: NumPy array to NumPy array.

    Returns:
        None where they do not lie along one axis any more.
    """
    sizes = [1] * len(shape)
    sizes[flow.axis] = len(flow.atoms)
    # Numbers of places, not of atoms: two channels that were joined still have two places.
    places = np.broadcast_to(np.arange(len(flow.atoms), dtype=np.int64).reshape(sizes), shape)
    after = change(places)
    varying = [axis for axis in range(after.ndim) if after.shape[axis] > 1 and (np.diff(after, axis=axis) != 0).any()]
    if len(varying) != 1:
        return None
    (axis,) = varying
    line = np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)[:, 0]
    return Flow(axis, flow.atoms[line])
