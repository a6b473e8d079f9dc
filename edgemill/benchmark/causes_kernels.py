"""Rules for integer operators that run on slow kernels of onnxruntime on x86.

MLAS multiplies uint8 activations with int8 weights by VNNI (vpdpbusd). Measured with onnxruntime 1.32 on
AVX512-VNNI, in times of U8S8: a dense convolution took 2.6 with U8U8 and 19 with S8S8, a depthwise one 2.0
with either. Zero points of the weights other than 0 made a network of convolutions take 1.2 times as long;
with uint8 weights the zero point made no difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.benchmark.causes_cause import Case, Cause, number, plural
from edgemill.benchmark.causes_graph import GraphView

_PRODUCTS = {
    "QLinearConv": (0, 2, 3),
    "QLinearMatMul": (0, 2, 3),
    "QGemm": (0, 2, 3),
    "MatMulInteger": (0, 2, 1),
    "MatMulIntegerToFloat": (0, 4, 1),
    "DynamicQuantizeMatMul": (None, None, 1),
}
"""Position of the activations, their zero point and the weights among an operator's inputs."""


_WEIGHT_ZERO_POINTS = {
    "QLinearConv": 5,
    "QLinearMatMul": 5,
    "QGemm": 5,
    "MatMulInteger": 3,
    "MatMulIntegerToFloat": 5,
    "DynamicQuantizeMatMul": 3,
}


def signed_kernels(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """Integer operators with int8 activations."""
    slow = {index for index in _products(graph) if _activation_type(graph, index) == "int8"} - claimed
    if not slow or not case.x86:
        return []
    claimed |= slow
    text = (
        f"{plural(len(slow), 'integer operator')} multiply int8 activations, for which onnxruntime has no fast kernel "
        f"on x86, and take {number(case.time(slow))} us.{_baseline(case)}"
    )
    remedy = "Quantize activations to uint8: scale unchanged, zero point + 128. In a target: int8.activations: uint8."
    return [case.cause("signed_activations", "int8 activations on x86", text, slow, remedy)]


def unsigned_weights(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """Integer operators with uint8 weights."""
    slow = {index for index in _products(graph) if _weight_type(graph, index) == "uint8"} - claimed
    if not slow or not case.x86:
        return []
    claimed |= slow
    text = (
        f"{plural(len(slow), 'integer operator')} have uint8 weights. The fast kernel multiplies uint8 by int8; for "
        f"uint8 by uint8 onnxruntime needs about twice its time: {number(case.time(slow))} us here.{_baseline(case)}"
    )
    remedy = (
        "Quantize weights to int8, symmetric, one scale per channel. Where VNNI is missing and 16-bit sums would "
        "saturate, add reduce_range."
    )
    return [case.cause("unsigned_weights", "uint8 weights", text, slow, remedy)]


def asymmetric_weights(case: Case, graph: GraphView, claimed: set[int]) -> list[Cause]:
    """Integer operators whose int8 weights have zero points other than 0."""
    slow = {
        index
        for index in _products(graph)
        if _weight_type(graph, index) == "int8" and _weight_zero_points(graph, index).any()
    } - claimed
    if not slow or not case.x86:
        return []
    claimed |= slow
    text = (
        f"{plural(len(slow), 'integer operator')} have int8 weights with zero points other than 0, so every product "
        f"needs extra sums; they take {number(case.time(slow))} us.{_baseline(case)}"
    )
    remedy = (
        "Store weights as int8 with zero point 0, one scale per channel. Where the file holds fp32 weights, "
        "onnxruntime quantizes them itself, with such zero points."
    )
    return [case.cause("asymmetric_weights", "weights with a zero point", text, slow, remedy)]


def _weight_zero_points(graph: GraphView, index: int) -> NDArray[Any]:
    inputs, position = graph.inputs(index), _WEIGHT_ZERO_POINTS[graph.kind(index)]
    values = graph.value(inputs[position]) if len(inputs) > position else None
    return np.zeros(1) if values is None else values


def _products(graph: GraphView) -> list[int]:
    return [i for i in range(len(graph.nodes)) if graph.kind(i) in _PRODUCTS]


def _activation_type(graph: GraphView, index: int) -> str | None:
    position, zero_point, _ = _PRODUCTS[graph.kind(index)]
    inputs = graph.inputs(index)
    if zero_point is not None and len(inputs) > zero_point and inputs[zero_point]:
        return graph.stored_type(inputs[zero_point])
    return graph.stored_type(inputs[position]) if position is not None else None


def _weight_type(graph: GraphView, index: int) -> str | None:
    return graph.stored_type(graph.inputs(index)[_PRODUCTS[graph.kind(index)][2]])


def _baseline(case: Case) -> str:
    if case.baseline is None:
        return ""
    return f" The whole fp32 baseline takes {number(case.baseline.per_inference_us)} us."
