"""Arrays of two machines, compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.errors import ToolchainError
from edgemill.validate.divergence import ROUNDING, Closeness, Difference

_BITS: dict[str, Any] = {"float16": np.int16, "float32": np.int32}


def measure(reference: NDArray[Any], answer: NDArray[Any], where: str) -> Difference:
    """Compare two arrays element by element.

    Args:
        reference: (N, ...), any plain type.
        answer: the same shape and type.
        where: for messages.

    Raises:
        ToolchainError: shape or type differ.
    """
    if reference.shape != answer.shape or reference.dtype != answer.dtype:
        raise ToolchainError(
            "Host and target answer in different shapes.",
            where=where,
            expected=f"{reference.dtype} {reference.shape}",
            got=f"{answer.dtype} {answer.shape}",
        )
    rows = reference.reshape(len(reference), -1), answer.reshape(len(answer), -1)
    equal = _same_bits(*rows)
    wide = [side.astype(np.float64) for side in rows]
    finite = np.isfinite(wide[0]), np.isfinite(wide[1])
    both = finite[0] & finite[1]
    gaps = np.abs(np.subtract(wide[0], wide[1], where=both, out=np.zeros(both.shape)))
    largest = float(gaps.max(initial=0.0))
    known = wide[0][finite[0]]
    scale = float(np.ptp(known)) if known.size else 0.0
    relative = largest / scale if scale > 0 else (0.0 if largest == 0 else 1.0)
    choices = rows[0].shape[1] > 1 and len(rows[0]) > 0
    agreement = float((rows[0].argmax(1) == rows[1].argmax(1)).mean()) if choices else None
    difference = {
        "max_abs": largest,
        "max_relative": relative,
        "max_ulp": int(ulp_distance(rows[0], rows[1])[both].max(initial=0)) if str(reference.dtype) in _BITS else None,
        "equal_rows": float(equal.all(axis=1).mean()) if len(equal) else 1.0,
        "not_finite": int((finite[0] != finite[1]).sum()),
        "agreement": agreement,
    }
    return Difference(closeness=_closeness(bool(equal.all()), difference, reference.dtype), **difference)


def _closeness(equal: bool, difference: dict[str, Any], dtype: np.dtype[Any]) -> Closeness:
    if equal:
        return Closeness.EQUAL
    small = difference["max_relative"] <= ROUNDING and not difference["not_finite"]
    same_choice = difference["agreement"] in (None, 1.0)
    if np.issubdtype(dtype, np.floating) and small and same_choice:
        return Closeness.ROUNDING
    return Closeness.PARTED


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    # NaN equals NaN, and -0 does not equal 0
    if np.issubdtype(a.dtype, np.floating):
        signs = np.signbit(a) == np.signbit(b)
        same: NDArray[np.bool_] = ((a == b) & signs) | (np.isnan(a) & np.isnan(b))
        return same
    return np.asarray(a == b)


def ulp_distance(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """How many floats of the type lie between two arrays, element by element.

    Neighbours have distance 1; -0 and 0 have distance 0. Distances of NaN mean nothing.

    Floats of one sign are ordered as their bits are, read as integers (IEEE 754, section 3.4; Bruce
    Dawson, "Comparing floating point numbers", 2012).

    Args:
        a: float16 or float32.
        b: the same type and shape.
    """
    ordered = []
    for side in (a, b):
        bits = np.ascontiguousarray(side).view(_BITS[str(side.dtype)]).astype(np.int64)
        lowest = -(1 << (8 * side.dtype.itemsize - 1))
        ordered.append(np.where(bits < 0, lowest - bits, bits))
    distance: NDArray[np.int64] = np.abs(ordered[0] - ordered[1])
    return distance
