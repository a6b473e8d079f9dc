"""Pairs of layers whose common channels can be scaled without changing what the graph computes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto

from edgemill.quantize.onnx_graph import Editor, attribute
from edgemill.quantize.repair.linear import KINDS, Linear, label, linear
from edgemill.quantize.repair.shapes import RESHAPES, keeps_last, shapes, value_readers

# f(s x) = s f(x) for s > 0, channel by channel.
_HOMOGENEOUS = {
    "AveragePool",
    "Dropout",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Relu",
}
_POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}


@dataclass(frozen=True)
class Clipping:
    """A ReLU6 or the like between two layers.

    Attributes:
        tensor: what it clips.
        axis: dimension of the channels.
        limit: largest value that it lets through.
    """

    tensor: str
    axis: int
    limit: float


@dataclass(frozen=True)
class Pair:
    """Two layers, the second of which alone reads the first.

    Attributes:
        first: makes the channels.
        second: reads them.
        vectors: constants with one value per channel that are added on the way: the bias of the first layer.
        labels: which channel of the first layer an input channel of the second one is, (inputs of second,).
        clips: between them.
    """

    first: Linear
    second: Linear
    vectors: tuple[str, ...]
    labels: NDArray[np.intp]
    clips: tuple[Clipping, ...]

    @property
    def name(self) -> str:
        """Both layers."""
        return f"{self.first.name} -> {self.second.name}"


@dataclass
class _Walk:
    """Where the channels are in a tensor: `labels` along dimension `axis`."""

    tensor: str
    axis: int
    rank: int
    labels: NDArray[np.intp]
    vectors: list[str] = field(default_factory=list)
    clips: list[Clipping] = field(default_factory=list)


class _UnfollowedError(Exception):
    """Why a walk ends; empty where there is nothing to tell."""


def find_pairs(model: onnx.ModelProto) -> tuple[list[Pair], dict[str, str]]:
    """All pairs of a graph, in its order.

    Returns:
        the pairs, and for every other layer that is read by something why it is not the first of one.
    """
    return _Finder(model).find()


class _Finder:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.editor = Editor(model)
        self.readers = value_readers(model)
        self.shapes = shapes(model)

    def find(self) -> tuple[list[Pair], dict[str, str]]:
        pairs, left = [], {}
        for node in self.editor.graph.node:
            if node.op_type not in KINDS:
                continue
            try:
                pairs.append(self._follow(node))
            except _UnfollowedError as reason:
                if str(reason):
                    left[label(node)] = str(reason)
        return pairs, left

    def _layer(self, node: NodeProto) -> Linear:
        weight = self.editor.value(node.input[1])
        if weight is None:
            raise _UnfollowedError(f"the weights of {label(node)} are not constant")
        if weight.dtype != np.float32:
            raise _UnfollowedError(f"the weights of {label(node)} are {weight.dtype}")
        self._own(node.input[1], f"the weights of {label(node)}")
        view = linear(node, weight.shape)
        if isinstance(view, str):
            raise _UnfollowedError(f"{label(node)}: {view}")
        return view

    def _own(self, constant: str, what: str) -> None:
        if len(self.readers[constant]) != 1 or constant in self.editor.outputs:
            raise _UnfollowedError(f"{what} are shared with {label(self.readers[constant][-1])}")

    def _follow(self, node: NodeProto) -> Pair:
        first = self._layer(node)
        rank = len(self.shapes.get(node.output[0], ())) or (len(first.shape) if first.convolution else 2)
        walk = _Walk(node.output[0], 1 if first.convolution else rank - 1, rank, np.arange(first.outputs))
        if len(node.input) > 2 and node.input[2]:
            self._bias(walk, node.input[2])
        while True:
            reader = self._only_reader(walk.tensor)
            if reader.op_type in KINDS:
                return self._close(first, reader, walk)
            self._pass(walk, reader)

    def _only_reader(self, tensor: str) -> NodeProto:
        readers = self.readers.get(tensor, [])
        if tensor in self.editor.outputs:
            raise _UnfollowedError("" if not readers else "its output is an output of the graph")
        if len(readers) != 1:
            raise _UnfollowedError(f"its output is read by {', '.join(map(label, readers)) or 'nobody'}")
        if list(readers[0].input).count(tensor) != 1:
            raise _UnfollowedError(f"{label(readers[0])} reads its output twice")
        return readers[0]

    def _close(self, first: Linear, node: NodeProto, walk: _Walk) -> Pair:
        if node.input[0] != walk.tensor:
            raise _UnfollowedError(f"its output is a weight of {label(node)}")
        second = self._layer(node)
        if walk.axis != (1 if second.convolution else walk.rank - 1) or second.inputs != len(walk.labels):
            raise _UnfollowedError(f"{label(node)} does not read its channels as channels")
        return Pair(first, second, tuple(walk.vectors), walk.labels, tuple(walk.clips))

    def _pass(self, walk: _Walk, node: NodeProto) -> None:
        kind = node.op_type
        if len(node.output) > 1 and any(name in self.readers for name in node.output[1:]):
            raise _UnfollowedError(f"{kind} {label(node)} has a second output")
        if kind in _POOLS and walk.axis != 1:
            raise _UnfollowedError(f"{kind} {label(node)} mixes its channels")
        if kind == "Clip":
            self._clip(walk, node)
        elif kind == "Pad":
            self._pad(walk, node)
        elif kind == "Add":
            other = node.input[1] if node.input[0] == walk.tensor else node.input[0]
            self._add(walk, other)
        elif kind == "Transpose":
            walk.axis = list(attribute(node, "perm", range(walk.rank)[::-1])).index(walk.axis)
        elif kind in RESHAPES:
            self._reshape(walk, node)
        elif kind not in _HOMOGENEOUS:
            raise _UnfollowedError(f"{kind} {label(node)} follows it")
        walk.tensor = node.output[0]

    def _clip(self, walk: _Walk, node: NodeProto) -> None:
        low, high = (
            self.editor.value(node.input[i]) if len(node.input) > i and node.input[i] else None for i in (1, 2)
        )
        if low is None or low.size != 1 or low.item() != 0 or high is None or high.size != 1 or high.item() <= 0:
            raise _UnfollowedError(f"Clip {label(node)} has other limits than 0 and a positive constant")
        walk.clips.append(Clipping(walk.tensor, walk.axis, float(high.item())))

    def _pad(self, walk: _Walk, node: NodeProto) -> None:
        amounts = self.editor.value(node.input[1]) if len(node.input) > 1 else None
        fill = self.editor.value(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        constant = attribute(node, "mode", b"constant") == b"constant"
        plain = amounts is not None and amounts.size == 2 * walk.rank and not amounts[walk.axis :: walk.rank].any()
        if len(node.input) > 3 or not plain or (constant and (fill is None or fill.any())):
            raise _UnfollowedError(f"Pad {label(node)} adds other values than zeros, or channels")

    def _bias(self, walk: _Walk, constant: str) -> None:
        value = self.editor.value(constant)
        if value is None or value.size != len(walk.labels) or value.dtype != np.float32:
            raise _UnfollowedError("its bias is not one constant per channel")
        self._own(constant, "the values of its bias")
        walk.vectors.append(constant)

    def _add(self, walk: _Walk, constant: str) -> None:
        value = self.editor.value(constant)
        if value is None:
            raise _UnfollowedError("another activation is added to its output")
        channels = len(walk.labels)
        per_channel = tuple(channels if axis == walk.axis else 1 for axis in range(walk.rank))
        if value.ndim > walk.rank or (1,) * (walk.rank - value.ndim) + value.shape != per_channel:
            raise _UnfollowedError("what is added to its output is not one value per channel")
        if (walk.labels != np.arange(channels)).any():
            raise _UnfollowedError("something is added after a reshape of its channels")
        self._bias(walk, constant)

    def _reshape(self, walk: _Walk, node: NodeProto) -> None:
        before, after = self.shapes.get(walk.tensor, ()), self.shapes.get(node.output[0], ())
        if walk.axis == len(before) - 1 and keeps_last(before, after):
            walk.axis, walk.rank = len(after) - 1, len(after)
            return
        old = [size for size in before[1:] if isinstance(size, int)]
        new = [size for size in after[1:] if isinstance(size, int)]
        if len(before) < 2 or len(after) < 2 or len(old) < len(before) - 1 or len(new) < len(after) - 1:
            raise _UnfollowedError(f"{node.op_type} {label(node)} has dimensions that are not fixed")
        if walk.axis == 0 or np.prod(old) != np.prod(new) or np.unique(walk.labels).size < 2:
            raise _UnfollowedError(f"{node.op_type} {label(node)} mixes samples, or there is one channel only")
        at = [-1 if index + 1 == walk.axis else 1 for index in range(len(old))]
        spread = np.broadcast_to(walk.labels.reshape(at), old).reshape(new)
        for axis, size in enumerate(new):
            along = np.moveaxis(spread, axis, 0).reshape(size, -1)
            if (along == along[:, :1]).all():
                walk.axis, walk.rank, walk.labels = axis + 1, len(after), along[:, 0].copy()
                return
        raise _UnfollowedError(f"{node.op_type} {label(node)} mixes its channels with positions")
