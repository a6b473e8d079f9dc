"""Traces that converters and glue code leave in outputs: told from the answers of both models alone.

All take outputs as (N, m) rows of finite values and answer with a sentence, or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

_MOVED_BEFORE = 0.2
_MOVED_AFTER = 0.8
_MIN_OF_A_CLASS = 5
_MIN_MOVED = 30

_MIN_ELEMENTS = 30
_WHOLE_CORRELATION = 0.9
_WHOLE_SCALE = 2.0
_INT16 = 32768
_AFFINE_CORRELATION = 0.999
_SCALE_OFF = 0.25


def class_order(answers: NDArray[np.int64], baseline: NDArray[np.int64], classes: int) -> str | None:
    """Whether the variant is right about everything but the order of the classes.

    The permutation under which most answers agree is the best assignment on the confusion matrix of
    both models' answers (Kuhn 1955; here `scipy.optimize.linear_sum_assignment`). It is believed
    where, of the samples of the classes that it moves, at most 20 % agree as they are and at least
    80 % agree reordered, with 5 samples in each such class and 30 in all.

    Args:
        answers: (N,) classes of the variant.
        baseline: (N,) classes of the baseline.
        classes: how many there are.
    """
    if not len(answers):
        return None
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (baseline, answers), 1)
    rows, columns = optimize.linear_sum_assignment(confusion, maximize=True)
    totals = confusion.sum(axis=1)
    # A class that the baseline never answers can be assigned to any other.
    moved = (rows != columns) & (totals[rows] > 0)
    if not moved.any() or totals[rows[moved]].min() < _MIN_OF_A_CLASS or totals[rows[moved]].sum() < _MIN_MOVED:
        return None
    of_moved = totals[rows[moved]].sum()
    as_is = np.diag(confusion)[rows[moved]].sum() / of_moved
    reordered = confusion[rows, columns][moved].sum() / of_moved
    if as_is > _MOVED_BEFORE or reordered < _MOVED_AFTER:
        return None
    pairs = list(zip(rows[moved].tolist(), columns[moved].tolist(), strict=True))
    listed = ", ".join(f"{usual} comes out as {ours}" for usual, ours in pairs[:6]) + (", ..." if pairs[6:] else "")
    overall = np.trace(confusion) / len(answers), confusion[rows, columns].sum() / len(answers)
    return (
        f"class {listed}; {100 * overall[0]:.1f} % of the answers are the baseline's as they are, "
        f"{100 * overall[1]:.1f} % with the classes reordered"
    )


def missing_dequantization(outputs: NDArray[Any], baseline: NDArray[Any]) -> str | None:
    """Whether outputs are the integers of a quantized output that nobody turned back into real values."""
    if np.any(outputs != np.round(outputs)) or not np.any(baseline != np.round(baseline)):
        return None
    if np.abs(outputs).max(initial=0) > _INT16:
        return None
    found = _affine(outputs, baseline)
    if found is None or found[0] < _WHOLE_CORRELATION or found[1] < _WHOLE_SCALE:
        return None
    _, scale, offset = found
    return (
        f"all outputs are whole numbers from {outputs.min():.0f} to {outputs.max():.0f}, near {scale:.4g} times the "
        f"baseline's plus {offset:.4g}; apply the scale and zero point of the model's output"
    )


def rescaled(outputs: NDArray[Any], baseline: NDArray[Any]) -> str | None:
    """Whether outputs are the baseline's but for a factor or an offset.

    For real values only: class scores may be scaled without any answer changing.
    """
    found = _affine(outputs, baseline)
    if found is None or found[0] < _AFFINE_CORRELATION:
        return None
    correlation, scale, offset = found
    spread = float(baseline.std(dtype=np.float64))
    shift = abs(offset + (scale - 1) * float(baseline.mean(dtype=np.float64)))
    if abs(scale - 1) <= _SCALE_OFF and shift <= _SCALE_OFF * spread:
        return None
    return (
        f"the outputs are {scale:.4g} times the baseline's plus {offset:.4g} (correlation {correlation:.5f}); it looks "
        "as if a scale or zero point was left out or applied twice, at the input or at the output"
    )


def _affine(outputs: NDArray[Any], baseline: NDArray[Any]) -> tuple[float, float, float] | None:
    """Correlation, factor and offset of `outputs = factor * baseline + offset`; None where they do not vary."""
    ours, usual = outputs.reshape(-1).astype(np.float64), baseline.reshape(-1).astype(np.float64)
    if len(ours) < _MIN_ELEMENTS:
        return None
    ours_mean, usual_mean = ours.mean(), usual.mean()
    ours, usual = ours - ours_mean, usual - usual_mean
    power, other, product = float(usual @ usual), float(ours @ ours), float(usual @ ours)
    if power == 0 or other == 0:
        return None
    scale = product / power
    return product / np.sqrt(power) / np.sqrt(other), scale, float(ours_mean - scale * usual_mean)
