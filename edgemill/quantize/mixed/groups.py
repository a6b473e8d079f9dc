"""Groups of operators that change their number format together.

onnxruntime computes an operator on integers only where all its activations are quantized, inputs and output.
So a group holds what would be left as a slow chain of converting operators if it changed alone:

- an operator with weights and what follows it without weights: activation functions, pooling, moves; at the
  entry of a graph, what goes before it;
- additions, products and concatenations that share an input: one of them alone would be converted to and fro
  beside the others, and the quantizer of the shared input would stay;
- an operator all of whose inputs are made in one group: x * sigmoid(x), parallel branches of one split.

Two operators with weights that read the same activation stay apart: one in float beside one in int8 costs
one conversion. NNCF cuts all readers of a quantizer together (`nncf.common.quantization.quantizer_removal`,
version 3.4), for a runtime where the quantizer goes with them; here the operator that makes the activation
keeps it. Where an activation itself is what int8 breaks, its maker and all its readers rank high (`Candidates.rank`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx
from onnx import NodeProto, TensorProto
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from edgemill.quantize.onnx_graph import MOVES

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_QUANTIZABLE = {*QLinearOpsRegistry, *QDQRegistry}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UNDEFINED}


@dataclass(frozen=True)
class Group:
    """Operators that are int8 together or float together.

    Attributes:
        name: of its first operator with weights, else of its first operator.
        nodes: names, in the order of the graph.
        weighted: whether an operator of it has weights or multiplies matrices.
        tensors: activations that its operators read and write.
    """

    name: str
    nodes: tuple[str, ...]
    weighted: bool
    tensors: frozenset[str]


def name_nodes(model: onnx.ModelProto) -> bool:
    """Give every node a name of its own, in place; says whether one was changed."""
    taken: set[str] = set()
    changed = False
    for index, node in enumerate(model.graph.node):
        if node.name and node.name not in taken:
            taken.add(node.name)
            continue
        wish = f"{node.name or node.op_type}_{index}"
        while wish in taken or any(other.name == wish for other in model.graph.node):
            wish += "_"
        node.name = wish
        taken.add(wish)
        changed = True
    return changed


def find_groups(model: onnx.ModelProto) -> tuple[Group, ...]:
    """Partition the operators that int8 quantization can reach.

    Args:
        model: fp32, shapes inferred, every node with a name of its own (`name_nodes`).

    Returns:
        groups in the order of their first operator; every operator that onnxruntime's quantizer would
        quantize is in exactly one.
    """
    types = _types(model)
    nodes = _quantizable(model, types)
    constants = {tensor.name for tensor in model.graph.initializer}
    read = {
        node.name: [
            name
            for name in dict.fromkeys(node.input)
            if name and name not in constants and types.get(name, TensorProto.UNDEFINED) in _FLOATS
        ]
        for node in nodes
    }
    maker = {name: node for node in nodes for name in node.output}
    union = _Union(node.name for node in nodes)
    followers = {node.name for node in nodes if _follows(node, read[node.name], maker)}
    for node in nodes:
        if node.name in followers:
            union.join(maker[read[node.name][0]].name, node.name)
    leaders = _leaders(nodes, read, maker)
    for name, reader in leaders.items():
        union.join(name, reader)
    same = _same_grid(nodes, read, followers)
    readers: dict[str, str] = {}
    for node in nodes:
        if node.op_type in WEIGHTED or len(read[node.name]) == 1:
            continue
        for name in read[node.name]:
            grid = same.get(name, name)
            union.join(readers.setdefault(grid, node.name), node.name)
    for node in nodes:
        makers = {union.root(maker[name].name) if name in maker else None for name in read[node.name]}
        if len(makers) == 1 and (only := makers.pop()) is not None and len(read[node.name]) > 1:
            union.join(only, node.name)
    return _groups(nodes, read, union)


def with_islands(groups: tuple[Group, ...], wide: Collection[int]) -> frozenset[int]:
    """Add to the float groups the int8 ones that would only convert back and forth between them.

    These are the connected parts of the int8 rest in which no operator has weights.

    Args:
        groups: all.
        wide: indices of those that are float.
    """
    rest = [index for index in range(len(groups)) if index not in wide]
    union = _Union(map(str, rest))
    first: dict[str, int] = {}
    for index in rest:
        for tensor in sorted(groups[index].tensors):
            union.join(str(first.setdefault(tensor, index)), str(index))
    useful = {union.root(str(index)) for index in rest if groups[index].weighted}
    return frozenset(wide) | {index for index in rest if union.root(str(index)) not in useful}


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _quantizable(model: onnx.ModelProto, types: dict[str, int]) -> list[NodeProto]:
    return [
        node
        for node in model.graph.node
        if node.op_type in _QUANTIZABLE
        and any(types.get(name, TensorProto.UNDEFINED) in _FLOATS for name in (*node.input[:1], *node.output[:1]))
    ]


def _follows(node: NodeProto, read: list[str], maker: dict[str, NodeProto]) -> bool:
    return node.op_type not in WEIGHTED and len(read) == 1 and read[0] in maker


def _leaders(nodes: list[NodeProto], read: dict[str, list[str]], maker: dict[str, NodeProto]) -> dict[str, str]:
    """Operators without weights that only feed others, by name: behind an input, or an operator that stays float."""
    found: dict[str, str] = {}
    for node in reversed(nodes):
        if node.op_type in WEIGHTED or len(read[node.name]) != 1 or read[node.name][0] in maker:
            continue
        reader = next((other for other in nodes if set(read[other.name]) & set(node.output)), None)
        if reader is not None:
            found[node.name] = reader.name
    return found


def _same_grid(nodes: list[NodeProto], read: dict[str, list[str]], followers: set[str]) -> dict[str, str]:
    """For an activation that was only moved, the one it was moved from."""
    same: dict[str, str] = {}
    for node in nodes:
        if node.name in followers and node.op_type in MOVES:
            source = read[node.name][0]
            same.update(dict.fromkeys(node.output, same.get(source, source)))
    return same


def _groups(nodes: list[NodeProto], read: dict[str, list[str]], union: _Union) -> tuple[Group, ...]:
    members: dict[str, list[NodeProto]] = {}
    for node in nodes:
        members.setdefault(union.root(node.name), []).append(node)
    found = []
    for group in members.values():
        anchor = next((node for node in group if node.op_type in WEIGHTED), group[0])
        tensors = {name for node in group for name in (*read[node.name], *node.output)}
        found.append(
            Group(anchor.name, tuple(node.name for node in group), anchor.op_type in WEIGHTED, frozenset(tensors))
        )
    return tuple(found)


class _Union:
    """Disjoint sets of names; the root of a set is the name that came first."""

    def __init__(self, names: Iterable[str]) -> None:
        self._order = {name: index for index, name in enumerate(names)}
        self._parent = {name: name for name in self._order}

    def root(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        first, second = sorted((self.root(one), self.root(other)), key=self._order.__getitem__)
        self._parent[second] = first
