"""Bias correction: the mean error of every output channel goes into its bias.

After Nagel, van Baalen, Blankevoort, Welling: "Data-Free Quantization Through Weight Equalization and Bias Correction"
(ICCV 2019), section 4.2; the expected values are means over calibration samples (appendix D).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgemill.quantize.repair.linear import Floats
from edgemill.quantize.repair.locate import find_layers
from edgemill.quantize.repair.patches import answers
from edgemill.quantize.repair.probe import Probe, Samples
from edgemill.quantize.repair.quantized import Layer
from edgemill.quantize.repair.report import Report
from edgemill.recipe import Repair


def bias_correction(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    samples: Samples,
    reduce_range: bool,
    report: Callable[[float, str], None] = lambda fraction, message: None,
) -> Report:
    """Correct the bias of every quantized layer of a QDQ graph in place, the first layer first.

    The correction of a channel is the mean, over samples and positions, of what the layer answers in the float graph
    less what it answers in the quantized one, before the activation function; activations and weights are quantized
    and the corrections of the layers before are in force. int32 holds it to half a step of the bias scale.
    A convolution or Gemm without bias gets one; a MatMul without is left as it is.

    Args:
        model: made by onnxruntime's quantizer.
        reference: the float graph that was quantized.
        samples: calibration samples.
        reduce_range: whether weights stay within -64..64.
        report: progress, 0..1.

    Returns:
        for every layer changed: `channels`, `largest` and `mean` correction (magnitude, relative to the
        layer's root mean square answer).
    """
    found, left = find_layers(model, reference, reduce_range)
    usable = [layer for layer in found if layer.takes_bias()]
    left |= {layer.name: "MatMul has no bias" for layer in found if not layer.takes_bias()}
    if not usable:
        return Report(Repair.BIAS_CORRECTION, {}, left)
    expected, power = _means(reference, usable, [layer.expected for layer in usable], samples)
    layers: dict[str, dict[str, float | int]] = {}
    for index, layer in enumerate(usable):
        report(index / len(usable), f"bias correction, layer {index + 1} of {len(usable)}")
        (found_mean,), _ = _means(model, [layer], [layer.answer], samples)
        before = layer.bias
        added = not layer.has_bias
        layer.add_to_bias(expected[index] - found_mean)
        change = np.abs(layer.bias - before)
        if not change.any() and not added:
            left[layer.name] = "its mean errors are smaller than the steps of its bias"
            continue
        size = float(np.sqrt(power[index])) or 1.0
        layers[layer.name] = {
            "channels": int(np.count_nonzero(change)),
            "largest": float(change.max() / size),
            "mean": float(change.mean() / size),
        }
    return Report(Repair.BIAS_CORRECTION, layers, left)


def _means(
    model: onnx.ModelProto, layers: list[Layer], tensors: list[str], samples: Samples
) -> tuple[list[Floats], list[float]]:
    """Mean of every channel of the layers' answers, (outputs,) each, and the mean square of each layer."""
    probe = Probe(model, tensors)
    sums: list[Floats] = [np.zeros(layer.linear.outputs) for layer in layers]
    squares, counts = [0.0] * len(layers), [0] * len(layers)
    for x in samples:
        values = probe(x)
        for index, (layer, tensor) in enumerate(zip(layers, tensors, strict=True)):
            rows = answers(layer.linear, values[tensor]).reshape(-1, layer.linear.outputs)
            sums[index] += rows.sum(axis=0, dtype=np.float64)
            squares[index] += float((rows.astype(np.float64) ** 2).sum())
            counts[index] += len(rows)
    means: list[Floats] = [total / max(count, 1) for total, count in zip(sums, counts, strict=True)]
    powers = [
        square / max(count * layer.linear.outputs, 1)
        for square, count, layer in zip(squares, counts, layers, strict=True)
    ]
    return means, powers
