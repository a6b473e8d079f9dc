"""Why operators compute on floats although their inputs are 8-bit: what keeps onnxruntime from fusing them.

onnxruntime replaces DequantizeLinear -> operator -> QuantizeLinear by one integer operator if all of it
fits: QDQ selectors (onnxruntime/core/optimizer/qdq_transformer/selectors_actions), ReluQuantFusion,
which drops a Relu in front of a QuantizeLinear whose zero point is the type's smallest value, and
QDQS8ToU8Transformer, which on x86 turns int8 pairs into uint8 where one single node reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from edgemill.benchmark.causes_graph import DEQUANTIZE, MOVES, QUANTIZE, RECTIFIERS, GraphView

WEIGHTED = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_INTEGER_KERNELS = WEIGHTED | {
    *("Add", "Mul", "AveragePool", "GlobalAveragePool", "Sigmoid", "LeakyRelu", "Softmax", "Concat", "Where"),
    *("ArgMax", "Resize", "DepthToSpace"),
}
_FLOAT_OUTPUT = {"Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
"""Integer operators for these may answer in fp32: their output need not be quantized."""
_SHAPES = {"Shape", "Constant", "ConstantOfShape", "Size"}


class Blocker(StrEnum):
    """What keeps an operator in fp32."""

    RELU = "relu_apart"
    OUTPUT = "output_not_quantized"
    INPUT = "input_not_quantized"
    WEIGHTS = "weights_not_quantized"
    KERNEL = "no_integer_kernel"
    WIDTH = "not_8_bit"
    SIGNED = "signed_activations"
    UNKNOWN = "not_visible"


@dataclass(frozen=True)
class Unfused:
    """An operator that computes in fp32 on dequantized inputs.

    Attributes:
        index: of the node.
        blockers: everything that keeps it apart, never empty.
        zero_points: type and zero point of the quantizations behind its Relu, if they are a blocker.
        readers: how many nodes read the int8 tensor that could not become uint8.
    """

    index: int
    blockers: frozenset[Blocker]
    zero_points: tuple[tuple[str, int], ...] = ()
    readers: int = 0


def unfused(graph: GraphView, x86: bool) -> Iterator[Unfused]:
    """All operators of a graph that compute in fp32 although an input of theirs is dequantized.

    Args:
        graph: the optimized graph.
        x86: the CPU is one on which onnxruntime runs no int8 activations.
    """
    for index in range(len(graph.nodes)):
        kind = graph.kind(index)
        skip = {QUANTIZE, DEQUANTIZE, *MOVES, *_SHAPES, *RECTIFIERS, "Cast", ""}
        if kind not in skip and graph.dequantizers(index):
            yield _blocked(graph, index, x86)


def around(graph: GraphView, found: set[int]) -> set[int]:
    """The nodes together with the conversions and rectifiers that exist only because they are in fp32."""
    whole = set(found)
    growing = True
    while growing:
        near = {other for index in whole for other in (*graph.sources(index), *graph.consumers(index))} - whole
        more = {index for index in near if _belongs(graph, index, whole)}
        whole |= more
        growing = bool(more)
    return whole


def _belongs(graph: GraphView, index: int, whole: set[int]) -> bool:
    kind = graph.kind(index)
    if kind == DEQUANTIZE:
        readers = graph.consumers(index)
        return bool(readers) and all(reader in whole for reader in readers)
    if kind == QUANTIZE or kind in RECTIFIERS:
        sources = graph.sources(index)
        return any(source in whole and graph.kind(source) != DEQUANTIZE for source in sources)
    return False


def _blocked(graph: GraphView, index: int, x86: bool) -> Unfused:
    kind = graph.kind(index)
    blockers: set[Blocker] = set()
    dequantizers = graph.dequantizers(index)
    types = {graph.integer_type(source) for source in dequantizers.values()}
    if kind not in _INTEGER_KERNELS:
        blockers.add(Blocker.KERNEL)
    if len(dequantizers) < len(graph.activations(index)):
        blockers.add(Blocker.INPUT)
    if kind in WEIGHTED and len(graph.inputs(index)) > 1 and graph.inputs(index)[1] in graph.constants:
        blockers.add(Blocker.WEIGHTS)
    rectified, quantizers = _behind(graph, index)
    if not quantizers and kind not in _FLOAT_OUTPUT:
        blockers.add(Blocker.OUTPUT)
    zero_points = tuple(sorted({zero for q in quantizers if (zero := _cut(graph, q)) is not None}))
    if rectified and zero_points:
        blockers.add(Blocker.RELU)
    types |= {graph.integer_type(q) for q in quantizers}
    if types - {"int8", "uint8", None}:
        blockers.add(Blocker.WIDTH)
    if x86 and "int8" in types:
        blockers.add(Blocker.SIGNED)
    readers = max((_readers(graph, source) for source in dequantizers.values()), default=0)
    return Unfused(index, frozenset(blockers or {Blocker.UNKNOWN}), zero_points if rectified else (), readers)


def _behind(graph: GraphView, index: int) -> tuple[bool, list[int]]:
    """Whether a Relu follows, fused or not, and the QuantizeLinear nodes behind it."""
    rectified = graph.attribute(index, "activation") in RECTIFIERS
    last = index
    followers = graph.consumers(index)
    if len(followers) == 1 and graph.kind(followers[0]) in RECTIFIERS:
        rectified, last = True, followers[0]
    return rectified, [reader for reader in graph.consumers(last) if graph.kind(reader) == QUANTIZE]


def _cut(graph: GraphView, quantizer: int) -> tuple[str, int] | None:
    """Type and zero point of a quantization that does not by itself cut off what is below zero; None if it does."""
    kind, zero = graph.integer_type(quantizer), graph.zero_point(quantizer)
    if kind not in {"int8", "uint8"} or zero is None or zero == np.iinfo(kind).min:
        return None
    return kind, zero


def _readers(graph: GraphView, dequantizer: int) -> int:
    """How many nodes read the integers that a DequantizeLinear converts."""
    return len(graph.readers.get(graph.inputs(dequantizer)[0], []))
