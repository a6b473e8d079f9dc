"""Ranges of a model under quantization: from calibration before training, from the weights after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, InvariantError
from edgemill.quantize.normal_form import activation_of, relu_of
from edgemill.quantize.placement import QatModel
from edgemill.quantize.quantizers import ActivationQuantizer, reset
from edgemill.tf import tf


@dataclass(frozen=True)
class Range:
    """Learnable range of one activation tensor."""

    layer: str
    quantizer: ActivationQuantizer
    variables: Any
    pinned: bool

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value on the grid, before rounding to a zero point."""
        return float(self.variables["min_var"].numpy()), float(self.variables["max_var"].numpy())


def activation_ranges(qat: QatModel) -> Iterator[Range]:
    """Ranges of all quantized activations."""
    for layer in qat.grids:
        yield Range(layer.name, layer.quantizer, layer.quantizer_vars, False)
    for wrapper in qat.wrappers:
        if wrapper.quantize_config.activation is not None:
            pinned = relu_of(wrapper.layer) is not None or activation_of(wrapper.layer) in {"relu", "relu6"}
            yield Range(wrapper.name, wrapper.quantize_config.activation, wrapper._output_quantizer_vars, pinned)


def calibrate(qat: QatModel, data: Dataset, batch_size: int) -> None:
    """Set weight ranges from the weights and activation ranges from the calibration split.

    The activations observed are those of the network with quantized weights.

    Raises:
        DataError: the calibration samples make an activation NaN or infinite.
    """
    refresh_weight_ranges(qat)
    ranges = list(activation_ranges(qat))
    for item in ranges:
        reset(item.variables)
        item.quantizer.observing = True
    try:
        size = data.sizes[SplitName.CALIBRATION]
        for start in range(0, size, batch_size):
            x = data.features(SplitName.CALIBRATION, start, min(start + batch_size, size))
            qat.model(tf.constant(x), training=False)
    finally:
        for item in ranges:
            item.quantizer.observing = False
    bad = [item.layer for item in ranges if not np.isfinite(item.limits).all()]
    if bad:
        raise DataError(
            "An activation is not finite on the calibration samples.",
            where=", ".join(bad[:5]),
            expected="finite values",
            remedy="look for NaN and infinity in the calibration split and in the weights",
        )


def refresh_weight_ranges(qat: QatModel) -> None:
    """Set every weight range from the current weights, so that the grid is that of the final weights.

    During training tfmot's ranges are those of the step before. An all-zero channel gets the mean
    range of its layer: any would do, but an empty one has no scale.
    """
    for wrapper in qat.wrappers:
        for weight, quantizer, variables in wrapper._weight_vars:
            quantizer(tf.convert_to_tensor(weight), True, variables)
            top = np.asarray(variables["max_var"].numpy())
            if (top == 0).any():
                variables["max_var"].assign(np.where(top == 0, top[top > 0].mean() if top.any() else 1.0, top))


def check_pinned(qat: QatModel) -> None:
    """Check that training left the minimum after every ReLU at exactly 0.

    Raises:
        InvariantError: it did not.
    """
    for item in activation_ranges(qat):
        if item.pinned and item.limits[0] != 0.0:
            raise InvariantError(
                "The range after a ReLU does not start at 0.", where=item.layer, expected="0.0", got=item.limits[0]
            )
