"""Rules that name why an ONNX model is slow, from its profile and the graph that onnxruntime made of it.

Every node is counted for one cause only: the rules run in a fixed order, and each leaves alone what an
earlier one has claimed.
"""

from __future__ import annotations

from collections.abc import Callable

from edgemill.benchmark.causes_cause import Case, Cause, number, percent, plural
from edgemill.benchmark.causes_graph import DEQUANTIZE, QUANTIZE, GraphView
from edgemill.benchmark.causes_kernels import asymmetric_weights, signed_kernels, unsigned_weights
from edgemill.benchmark.causes_model import dense_zeros, memory_bound, too_small
from edgemill.benchmark.causes_unfused import unfused_causes
from edgemill.benchmark.profile_nodes import NodeTime

_LAYOUT = {"Transpose", "ReorderInput", "ReorderOutput"}
_CONVERSIONS = {QUANTIZE, DEQUANTIZE, "DynamicQuantizeLinear", "Cast"}
_COPIES = {"MemcpyFromHost", "MemcpyToHost"}

Rule = Callable[[Case, GraphView, set[int]], list[Cause]]


def name_causes(case: Case, graph: GraphView) -> list[Cause]:
    """All causes that the rules find, in no particular order, however little time they take.

    Args:
        case: profile, baseline and machine.
        graph: the optimized graph with the same indices as the profile.
    """
    claimed: set[int] = set()
    found: list[Cause] = []
    for rule in _RULES:
        found += rule(case, graph, claimed)
    return found


def _provider_fallback(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    profile = case.profile
    away = {
        index
        for index, node in enumerate(profile.nodes)
        if (node.provider != profile.asked or node.operator in _COPIES) and index not in claimed
    }
    if not away:
        return []
    claimed |= away
    others = sorted({profile.nodes[index].provider for index in away} - {profile.asked})
    text = (
        f"{plural(len(away), 'node')} did not run on {profile.asked}, which was asked for, but on "
        f"{', '.join(others) or 'copies between memories'}, and took {number(case.time(away))} us."
    )
    return [
        case.cause(
            "provider_fallback",
            "operators fell back to another execution provider",
            text,
            away,
            f"Replace the operators that {profile.asked} lacks, or ship for a provider that runs them all.",
        )
    ]


def _conv_integer(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    convolutions = {i for i in range(len(graph.nodes)) if graph.kind(i) == "ConvInteger"} - claimed
    if not convolutions:
        return []
    chain = set(convolutions)
    for index in convolutions:
        chain |= {source for source in graph.sources(index) if graph.kind(source) == "DynamicQuantizeLinear"}
        chain |= _rescaling(graph, index)
    chain -= claimed
    claimed |= chain
    text = (
        f"Activations are quantized at run time, so {plural(len(convolutions), 'convolution')} run as ConvInteger, "
        f"for which onnxruntime has no optimized kernel: {number(case.time(convolutions))} us, and "
        f"{number(case.time(chain - convolutions))} us more to quantize their inputs and rescale their results."
        + case.beside(_is_convolution, "convolutions")
    )
    return [
        case.cause(
            "conv_integer",
            "dynamic quantization of convolutions",
            text,
            chain,
            "Quantize statically (int8_static or int8_qat): activations with ranges from calibration samples run as "
            "QLinearConv. Dynamic quantization pays for matrix products only.",
        )
    ]


def _rescaling(graph: GraphView, index: int) -> set[int]:
    """Cast, the products with the scales, and the bias behind a ConvInteger."""
    found: set[int] = set()
    frontier = graph.consumers(index)
    for _ in range(3):
        near = [i for i in frontier if graph.kind(i) in {"Cast", "Mul", "Add"} and len(graph.activations(i)) <= 2]
        found |= set(near)
        found |= {source for i in near for source in graph.sources(i) if graph.kind(source) == "Mul"}
        # A bias is stored; an Add of two activations is a residual connection of the model itself.
        found -= {i for i in near if graph.kind(i) == "Add" and len(graph.activations(i)) > 1}
        frontier = [reader for i in near if i in found for reader in graph.consumers(i)]
    return found


def _reorder(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    moves = {i for i, node in enumerate(case.profile.nodes) if node.operator in _LAYOUT} - claimed
    if not moves:
        return []
    claimed |= moves
    text = (
        f"{plural(len(moves), 'node')} only move data into another memory layout and take "
        f"{number(case.time(moves))} us, {percent(case.profile.share(case.time(moves)))} of the time."
    )
    return [
        case.cause(
            "reorder",
            "layout conversions",
            text,
            moves,
            "Keep one layout through the model: fuse or remove transposes, and avoid operators between convolutions "
            "that have no kernel for the convolutions' layout.",
        )
    ]


def _conversions(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    left = {i for i, node in enumerate(case.profile.nodes) if node.operator in _CONVERSIONS} - claimed
    if not left:
        return []
    claimed |= left
    casts = {i for i in left if case.profile.nodes[i].operator == "Cast"}
    remedy = "Quantize neighbouring operators too, so that values stay 8-bit between them."
    if case.time(casts) > case.time(left) / 2:
        remedy = (
            "This CPU has no kernels for the type that the model stores; onnxruntime converts around every operator. "
            "Ship fp32 or int8 here."
        )
    text = (
        f"{plural(len(left), 'node')} only convert between number types and take {number(case.time(left))} us, "
        f"{percent(case.profile.share(case.time(left)))} of the time."
    )
    return [case.cause("conversion_overhead", "conversions between number types", text, left, remedy)]


def _is_convolution(node: NodeTime) -> bool:
    return "Conv" in node.operator


_RULES: tuple[Rule, ...] = (
    _provider_fallback,
    _conv_integer,
    unfused_causes,
    signed_kernels,
    unsigned_weights,
    asymmetric_weights,
    _reorder,
    _conversions,
    dense_zeros,
    memory_bound,
    too_small,
)
