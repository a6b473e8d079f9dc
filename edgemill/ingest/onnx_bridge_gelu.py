"""GELU as exporters write it out, found in an ONNX graph (Hendrycks and Gimpel 2016, section 2)."""

from __future__ import annotations

from math import sqrt

import numpy as np
from onnx import NodeProto, helper

from edgemill.ingest.onnx_bridge_graph import Affine, Graph


def find_gelu(graph: Graph) -> None:
    """Put one node in the place of x * 0.5 * (1 + erf(x / sqrt(2)))."""
    for node in [item for item in graph.nodes if item.op_type == "Erf"]:
        gone: list[NodeProto] = []
        found = _around(graph, node, gone)
        if found is None:
            continue
        source, last = found
        graph.nodes[graph.nodes.index(last)] = helper.make_node("Gelu", [source], list(last.output), name=node.name)
        graph.nodes = [item for item in graph.nodes if not any(item is other for other in gone)]
        graph.link()


def _operand(graph: Graph, node: NodeProto) -> str:
    return next((name for name in node.input if name not in graph.constants), "")


def _around(graph: Graph, node: NodeProto, gone: list[NodeProto]) -> tuple[str, NodeProto] | None:
    """The operand and the last of the nodes around an Erf, if they are a GELU; the others are put into `gone`."""
    before, plus = graph.makers.get(node.input[0]), graph.only_reader(node.output[0])
    if before is None or plus is None or graph.only_reader(before.output[0]) is None:
        return None
    source = _operand(graph, before)
    scaled, sign = graph.affine(before, source), 1
    gone += [before, node]
    negation = graph.makers.get(source)
    if negation is not None and negation.op_type == "Neg" and graph.only_reader(source) is not None:
        gone.append(negation)  # erfc(-u) = 1 - erf(-u) = 1 + erf(u)
        source, sign = negation.input[0], -1
    if not _is(scaled, 1 / sqrt(2), 0) or not _is(graph.affine(plus, node.output[0]), sign, 1):
        return None
    factor, taken, last = 1.0, 0, plus
    while not (np.isclose(factor, 0.5) and taken == 1):
        reader = graph.only_reader(last.output[0])
        part = None if reader is None else _factor(graph, reader, last.output[0], source, gone)
        if reader is None or part is None or taken + part[1] > 1:
            return None
        factor, taken = factor * part[0], taken + part[1]
        gone.append(last)
        last = reader
    return source, last


def _factor(graph: Graph, node: NodeProto, known: str, source: str, gone: list[NodeProto]) -> tuple[float, int] | None:
    """(constant, power of the operand) by which a node multiplies its input `known`."""
    if node.op_type != "Mul" or len(set(node.input)) != len(node.input):
        return None
    other = next(name for name in node.input if name != known)
    if other == source:
        return 1.0, 1
    constant = graph.affine(node, known)
    if constant is not None:
        return (float(constant[0].reshape(-1)[0]), 0) if constant[0].size == 1 else None
    half = graph.makers.get(other)
    inner = None if half is None or source not in half.input else graph.affine(half, source)
    if half is None or inner is None or inner[0].size != 1 or inner[1].any() or graph.only_reader(other) is None:
        return None
    gone.append(half)
    return float(inner[0].reshape(-1)[0]), 1


def _is(affine: Affine | None, scale: float, offset: float) -> bool:
    return affine is not None and all(
        item.size == 1 and np.allclose(item, want) for item, want in zip(affine, (scale, offset), strict=True)
    )
