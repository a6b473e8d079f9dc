"""Weight scales with the least squared error instead of the ones that hold the largest magnitude.

After Choukroun, Kravchik, Yang, Kisilev: "Low-bit Quantization of Neural Networks for Efficient Inference"
(ICCV workshops 2019), section 3 (OMSE), with a search over clipping ratios.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from edgemill.quantize.repair.linear import Floats
from edgemill.quantize.repair.locate import find_layers
from edgemill.quantize.repair.quantized import Layer
from edgemill.quantize.repair.report import Report
from edgemill.recipe import Repair

_LEAST_RATIO = 0.3
_COARSE = 70
_FINER = 5
# Share of the squared error that has to go for a change.
_GAIN = 1e-3


def mse_scales(model: onnx.ModelProto, reference: onnx.ModelProto, reduce_range: bool) -> Report:
    """Choose the weight scales of a QDQ graph anew and round the weights to nearest with them, in place.

    For every scale (of a channel, or of the tensor) the sum of (w - s clip(round(w / s)))^2 over its weights is made
    smallest over clipping ratios s / s_minmax in 0.3..1: 70 steps, then 8 finer ones around the best. Bias scales
    follow. Weights that no repair changes keep their stored values to the bit.

    Args:
        model: made by onnxruntime's quantizer.
        reference: the float graph that was quantized.
        reduce_range: whether weights stay within -64..64.

    Returns:
        for every layer changed: `scales` changed, `smallest_ratio`, `error` (squared error after, over before).
    """
    found, left = find_layers(model, reference, reduce_range)
    layers: dict[str, dict[str, float | int]] = {}
    for layer in found:
        changed = _choose(layer)
        if isinstance(changed, str):
            left[layer.name] = changed
        else:
            layers[layer.name] = changed
    return Report(Repair.MSE_SCALES, layers, left)


def _choose(layer: Layer) -> dict[str, float | int] | str:
    rows = layer.linear.matrix(layer.weight).astype(np.float64).reshape(layer.linear.outputs, -1)
    scales = layer.scales.astype(np.float64)
    if not layer.per_channel:
        rows, scales = rows.reshape(1, -1), scales[:1]
    usable = scales > 0
    base = _errors(rows, np.where(usable, scales, 1.0), layer)
    ratios, errors = _search(rows, np.where(usable, scales, 1.0), base, layer)
    better = usable & (errors < (1 - _GAIN) * base)
    if not better.any():
        return "the largest magnitude gives the best scales already"
    chosen = np.where(better, scales * ratios, scales).astype(np.float32)
    before = layer.integers
    if not layer.set_scales(chosen):
        return "int32 cannot hold its bias with smaller scales"
    matrix = layer.linear.matrix(layer.weight)
    new = np.clip(np.rint(matrix / layer.scales.reshape(layer.linear.groups, -1, 1)), layer.lowest, layer.highest)
    mask = np.broadcast_to(better, (layer.linear.outputs,)).reshape(layer.linear.groups, -1, 1)
    layer.set_integers(layer.linear.stored(np.where(mask, new, layer.linear.matrix(before)).astype(np.int32)))
    after = np.where(better, errors, base).sum()
    return {
        "scales": int(better.sum()),
        "smallest_ratio": float(ratios[better].min()),
        "error": float(after / base.sum()),
    }


def _search(rows: Floats, scales: Floats, base: Floats, layer: Layer) -> tuple[Floats, Floats]:
    """Best ratio and its error for every row; the largest of equally good ones."""
    best: Floats = np.ones(len(rows))
    least = base.copy()
    step = (1 - _LEAST_RATIO) / _COARSE
    plain: list[NDArray[np.float64]] = [np.full(len(rows), 1 - step * i) for i in range(1, _COARSE + 1)]
    for ratio in plain:
        best, least = _take(rows, scales, ratio, best, least, layer)
    middle = best.copy()
    for i in (*range(_FINER - 1, 0, -1), *range(-1, -_FINER, -1)):
        ratio = np.clip(middle + i * step / _FINER, _LEAST_RATIO, 1.0)
        best, least = _take(rows, scales, ratio, best, least, layer)
    return best, least


def _take(
    rows: Floats, scales: Floats, ratio: Floats, best: Floats, least: Floats, layer: Layer
) -> tuple[Floats, Floats]:
    errors = _errors(rows, scales * ratio, layer)
    better = errors < least
    return np.where(better, ratio, best), np.where(better, errors, least)


def _errors(rows: Floats, scales: Floats, layer: Layer) -> Floats:
    column = scales.astype(np.float32).astype(np.float64)[:, None]
    held = np.clip(np.rint(rows / column), layer.lowest, layer.highest) * column
    errors: Floats = ((rows - held) ** 2).sum(axis=1)
    return errors
