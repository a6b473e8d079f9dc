"""Whether a compiled file still gives the answers of the model it was made from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Signature
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Scheme

SAMPLES = 64

INTEGER_SCHEMES = (Scheme.INT8_STATIC, Scheme.INT8_QAT)
"""Formats in which everything should be calculated with integers."""

MAX_MEAN_DIFFERENCE = {"float": 1e-3, "half": 1e-2, "integer": 5e-2}
"""Largest mean absolute difference of the outputs, relative to the range of the original's outputs.

Only a compiler that broke the model goes over these; what is lost within them is for the gate to judge.
"""

MIN_AGREEMENT = 0.9
"""Share of equal argmax from which an integer model may differ more: one step can be much of a small range."""


def numbers_of(scheme: Scheme | None) -> str:
    """Key of `MAX_MEAN_DIFFERENCE` for a number format; None is fp32."""
    if scheme is None:
        return "float"
    return "half" if scheme is Scheme.FP16 else "integer"


def samples(data: Dataset, signature: Signature) -> NDArray[np.float32]:
    """The first calibration samples, float32 (N, *sample_shape); test data is never looked at here.

    Raises:
        DataError: there are none, or they do not have the shape of the model's input.
    """
    x = data.features(SplitName.CALIBRATION, 0, SAMPLES)
    wanted = signature.inputs[0].shape[1:] if signature.inputs else ()
    if len(x) == 0:
        raise DataError("The calibration split is empty.", where="split calibration", expected="at least one sample")
    if len(wanted) != x.ndim - 1 or any(s not in (None, got) for s, got in zip(wanted, x.shape[1:], strict=True)):
        raise DataError(
            "The samples do not have the shape of the model's input.",
            where="split calibration",
            expected=str(wanted),
            got=str(x.shape[1:]),
        )
    return x


def compare(reference: NDArray[np.float32], answer: NDArray[np.float32], numbers: str, where: str) -> dict[str, Any]:
    """Compare outputs (N, ...) of the original and of the compiled file.

    Args:
        reference: outputs of the original.
        answer: outputs of the compiled file on the same samples.
        numbers: key of `MAX_MEAN_DIFFERENCE`.
        where: the compiled file, for messages.

    Returns:
        Facts `max_difference` and `mean_difference` (relative to the range of `reference`), `agreement`
        (share of equal argmax; None where an answer has fewer than two numbers) and `compared` (N).

    Raises:
        ToolchainError: shapes differ, NaN or infinity appeared, or the difference is too large.
    """
    if answer.shape != reference.shape:
        raise ToolchainError(
            "The compiled model's output has another shape.",
            where=where,
            expected=str(reference.shape),
            got=str(answer.shape),
        )
    for title, array in (("model to compile", reference), ("compiled model", answer)):
        if not np.isfinite(array).all():
            raise ToolchainError(f"The {title} answers NaN or infinity.", where=where)
    flat, other = (array.reshape(len(array), -1).astype(np.float64) for array in (reference, answer))
    scale = max(float(np.ptp(flat)), 1e-3 * float(np.abs(flat).max()), 1e-9)
    difference = np.abs(flat - other) / scale
    agreement = float((flat.argmax(1) == other.argmax(1)).mean()) if flat.shape[1] > 1 else None
    mean = float(difference.mean())
    limit = MAX_MEAN_DIFFERENCE[numbers]
    same_choice = numbers == "integer" and agreement is not None and agreement >= MIN_AGREEMENT
    if mean > limit and not same_choice:
        raise ToolchainError(
            "The compiled model does not give the answers of the model it was made from.",
            where=where,
            expected=f"mean difference at most {limit} of the output range",
            got=f"mean difference {mean:.3g}, agreement {agreement}",
            remedy="this is a fault of the compiler or runtime: try another version of it",
        )
    return {
        "max_difference": float(difference.max()),
        "mean_difference": mean,
        "agreement": agreement,
        "compared": len(flat),
    }
