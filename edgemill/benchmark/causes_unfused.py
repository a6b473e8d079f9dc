"""Rules for operators that compute in fp32 in a quantized model: int8 activations, and pairs left unfused."""

from __future__ import annotations

from collections.abc import Sequence

from edgemill.benchmark.causes_cause import Case, Cause, listed, number, plural
from edgemill.benchmark.causes_graph import DEQUANTIZE, GraphView
from edgemill.benchmark.causes_qdq import WEIGHTED, Blocker, Unfused, around, unfused

_REMEDIES = {
    Blocker.RELU: "let the range behind every Relu start at 0 (zero point 0 for uint8, -128 for int8)",
    Blocker.OUTPUT: "quantize the output of these operators too",
    Blocker.INPUT: "quantize all inputs of these operators",
    Blocker.WEIGHTS: "quantize the weights as well as the activations",
    Blocker.KERNEL: "take quantization away from operators that have no integer kernel",
    Blocker.WIDTH: "use 8-bit types",
    Blocker.SIGNED: "use uint8 activations on x86",
    Blocker.UNKNOWN: "compare the pairs around these operators with the patterns that onnxruntime fuses",
}


def unfused_causes(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """`signed_activations` where nothing but int8 keeps operators in fp32, else `unfused_qdq`; `weight_only`."""
    found = [item for item in unfused(graph, case.x86) if item.index not in claimed]
    only_signed = [item for item in found if item.blockers == {Blocker.SIGNED}]
    others = [item for item in found if item.blockers != {Blocker.SIGNED}]
    causes = []
    for items, write in ((others, _unfused_qdq), (only_signed, _signed)):
        if items:
            nodes = around(graph, {item.index for item in items}) - claimed
            claimed |= nodes
            causes.append(write(case, graph, items, nodes))
    return causes + _weight_only(case, graph, claimed)


def _signed(case: Case, graph: GraphView, items: Sequence[Unfused], nodes: set[int]) -> Cause:
    conversions = nodes - {item.index for item in items}
    shared = max(item.readers for item in items)
    why = f" because up to {shared} nodes read one tensor" if shared > 1 else ""
    text = (
        f"Activations are int8, for which onnxruntime has no fast kernels on x86. It rewrites them to uint8 where it "
        f"can; here it could not{why}, so {_named(graph, items)} compute in fp32: "
        f"{number(case.time(nodes - conversions))} us, and {number(case.time(conversions))} us more for "
        f"{plural(len(conversions), 'conversion')}.{_baseline(case)}"
    )
    return case.cause(
        "signed_activations",
        "int8 activations on x86",
        text,
        nodes,
        "Quantize activations to uint8: the same values with scale unchanged and zero point + 128. In a target: "
        "int8.activations: uint8.",
    )


def _unfused_qdq(case: Case, graph: GraphView, items: Sequence[Unfused], nodes: set[int]) -> Cause:
    # Each operator is counted under the first of its blockers, in the order of the enumeration.
    groups: dict[Blocker, list[Unfused]] = {}
    for item in items:
        groups.setdefault(next(blocker for blocker in Blocker if blocker in item.blockers), []).append(item)
    reasons = [f"{_named(graph, group)}: {_reason(blocker, group)}" for blocker, group in groups.items()]
    conversions = nodes - {item.index for item in items}
    signed = sum(Blocker.SIGNED in item.blockers for item in items)
    also = f" {signed} of them also have int8 activations, which x86 does not run as integers." if signed else ""
    stored = _weights_converted(graph, items)
    weights = (
        f" The weights of {stored} of them are converted to fp32 at every inference, which also rules out the "
        "fast fp32 kernels."
        if stored
        else ""
    )
    text = (
        f"{plural(len(items), 'operator')} compute in fp32 between conversions "
        f"({'; '.join(reasons)}). They take {number(case.time(nodes - conversions))} us, and "
        f"{plural(len(conversions), 'conversion')} around them {number(case.time(conversions))} us."
        f"{weights}{also}{_baseline(case)}"
    )
    remedies = [_REMEDIES[blocker] for blocker in groups] + ([_REMEDIES[Blocker.SIGNED]] if signed else [])
    remedy = "; ".join(dict.fromkeys(remedies))
    return case.cause(
        "unfused_qdq",
        "quantize/dequantize pairs left around fp32 operators",
        text,
        nodes,
        f"{remedy[:1].upper()}{remedy[1:]}.",
    )


def _weight_only(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    stored = {
        index
        for index in range(len(graph.nodes))
        if graph.kind(index) == DEQUANTIZE and graph.is_constant(graph.inputs(index)[0])
    } - claimed
    readers = {reader for index in stored for reader in graph.consumers(index)} - claimed
    if not readers:
        return []
    nodes = stored | readers
    claimed |= nodes
    text = (
        f"Only the weights are quantized: {plural(len(stored), 'tensor')} of them are converted to fp32 at every "
        f"inference ({number(case.time(stored))} us), and the operators compute in fp32 "
        f"({number(case.time(readers))} us)."
    )
    return [
        case.cause(
            "weight_only",
            "weights are converted to fp32 at every inference",
            text,
            nodes,
            "Quantize the activations too (int8_static or int8_qat), or ship the weights in fp32.",
        )
    ]


def _reason(blocker: Blocker, group: Sequence[Unfused]) -> str:
    if blocker is Blocker.RELU:
        return f"the range behind their Relu does not start at zero ({_zero_points(group)}), so it stays apart"
    return {
        Blocker.OUTPUT: "their output is not quantized",
        Blocker.INPUT: "an input of theirs is not quantized",
        Blocker.WEIGHTS: "their weights are fp32",
        Blocker.KERNEL: "onnxruntime has no integer kernel for them",
        Blocker.WIDTH: "they are quantized to other than 8 bits",
        Blocker.SIGNED: "their activations are int8",
        Blocker.UNKNOWN: "the graph does not show why",
    }[blocker]


def _zero_points(group: Sequence[Unfused]) -> str:
    found: dict[str, list[int]] = {}
    for kind, zero in (pair for item in group for pair in item.zero_points):
        found.setdefault(kind, []).append(zero)
    spans = {kind: (min(zeros), max(zeros)) for kind, zeros in found.items()}
    parts = [f"{low} of {kind}" if low == high else f"{low} to {high} of {kind}" for kind, (low, high) in spans.items()]
    return f"zero point {listed(sorted(parts))}"


def _named(graph: GraphView, items: Sequence[Unfused]) -> str:
    kinds: dict[str, int] = {}
    for item in items:
        kind = graph.kind(item.index).removeprefix("Fused")
        kinds[kind] = kinds.get(kind, 0) + 1
    return listed(f"{count} {kind}" for kind, count in kinds.items())


def _weights_converted(graph: GraphView, items: Sequence[Unfused]) -> int:
    def converted(index: int) -> bool:
        inputs = graph.inputs(index)
        return (
            len(inputs) > 1 and graph.is_constant(inputs[1]) and graph.kind(graph.producer.get(inputs[1])) == DEQUANTIZE
        )

    return sum(graph.kind(item.index) in WEIGHTED and converted(item.index) for item in items)


def _baseline(case: Case) -> str:
    if case.baseline is None:
        return ""
    return f" The whole fp32 baseline takes {number(case.baseline.per_inference_us)} us."
