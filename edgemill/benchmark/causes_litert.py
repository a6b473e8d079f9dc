"""Rules that name why a TFLite model is slow, from LiteRT's profile."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from edgemill.benchmark.causes_cause import Case, Cause, counted, listed, number, percent, plural
from edgemill.benchmark.causes_model import too_small
from edgemill.benchmark.profile_litert import BUILTIN

_FLOAT = ("F32", "F16")
_PRODUCTS = ("Convolution", "Fully Connected", "Batch Matrix Multiply", "Deconvolution")
_NARROW = {"int8", "uint8", "float16", "int4"}


def name_causes(case: Case, types: AbstractSet[str]) -> list[Cause]:
    """All causes that the rules find, in no particular order, however little time they take.

    Args:
        case: profile, baseline and machine.
        types: numpy names of the types of the model's tensors.
    """
    causes: list[Cause] = []
    nodes = case.profile.nodes
    left = {i for i, node in enumerate(nodes) if node.provider == BUILTIN}
    converts = {i for i, node in enumerate(nodes) if node.operator.startswith("Convert")}
    floats = {
        i
        for i, node in enumerate(nodes)
        if node.operator.startswith(_PRODUCTS) and _only_float(node.operator) and i not in left
    }
    if left:
        causes.append(_not_delegated(case, left, types))
    if converts:
        causes.append(_conversions(case, converts))
    if floats and types & _NARROW:
        causes.append(_float_kernels(case, floats, types))
    return causes + too_small(case, None, set())


def _not_delegated(case: Case, left: set[int], types: AbstractSet[str]) -> Cause:
    operators = listed(counted(case.profile.nodes[index].operator for index in left))
    sixteen = " Its activations are int16, which XNNPACK does not run." if "int16" in types else ""
    text = (
        f"XNNPACK left {plural(len(left), 'operator')} ({operators}) to LiteRT's own kernels, which take "
        f"{number(case.time(left))} us, {percent(case.profile.share(case.time(left)))} of the time.{sixteen}"
    )
    remedy = (
        "Quantize activations to int8 instead of int16."
        if sixteen
        else "Replace these operators by ones that XNNPACK has, or by other number types of them."
    )
    return case.cause("not_delegated", "operators that XNNPACK does not run", text, left, remedy)


def _conversions(case: Case, converts: set[int]) -> Cause:
    dynamic = any("QD" in case.profile.nodes[index].operator for index in converts)
    kind = "quantize activations at run time" if dynamic else "convert between number types"
    text = (
        f"{plural(len(converts), 'operator')} only {kind} and take {number(case.time(converts))} us, "
        f"{percent(case.profile.share(case.time(converts)))} of the time."
    )
    remedy = "Quantize statically (int8_static or int8_qat)." if dynamic else "Quantize neighbouring operators too."
    return case.cause("conversion_overhead", "conversions between number types", text, converts, remedy)


def _float_kernels(case: Case, floats: set[int], types: AbstractSet[str]) -> Cause:
    stored = "float16" if "float16" in types and not types & {"int8", "uint8"} else "8-bit"
    text = (
        f"{plural(len(floats), 'operator')} compute in fp32 and take {number(case.time(floats))} us, although the "
        f"model stores {stored} values."
    )
    remedy = (
        "Ship float16 for its size only, or quantize to int8."
        if stored == "float16"
        else "Quantize the activations of these operators too (int8_static or int8_qat)."
    )
    return case.cause("float_kernels", "operators that compute in fp32", text, floats, remedy)


def _only_float(operator: str) -> bool:
    return any(name in operator for name in _FLOAT) and not any(mark in operator for mark in ("Q", "QC8"))
