"""Steps `channels.prune_onnx` and `channels.geometry_onnx`: declarations and settings only; light to import."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.recipe.stages import ChannelCost, Importance
from edgemill.step import Step


class RepairMethod(StrEnum):
    """What is changed in the layers that read channels which went."""

    LEAST_SQUARES = "least_squares"
    """Weights and bias are solved anew (He et al. 2017)."""
    MEAN = "mean"
    """The mean answer of what went moves into the bias."""
    NONE = "none"
    """Nothing."""


class PruneOnnxSettings(Frozen):
    """Settings of `channels.prune_onnx`."""

    keep: float = Field(gt=0, lt=1, description="share of the cost that stays")
    cost: ChannelCost = ChannelCost.MACS
    importance: Importance = Field(Importance.ACTIVATION, description="activation or l1: the others need gradients")
    multiple: int = Field(4, gt=0, description="channel counts are brought to multiples of this")
    repair: RepairMethod = RepairMethod.LEAST_SQUARES
    samples: int = Field(1000, gt=0, description="most samples on which channels are judged and repaired")
    batch_size: int = Field(50, gt=0, description="samples per inference")


PRUNE_ONNX = Step(
    name="channels.prune_onnx",
    version=1,
    body="edgemill.channels.onnx_prune:run",
    tools=("onnx", "onnxruntime", "numpy"),
)
"""Inputs `onnx` (fp32), `data`, and `latency` (a latency table) where cost is latency; output `onnx`."""


GEOMETRY_ONNX = Step(
    name="channels.geometry_onnx",
    version=1,
    body="edgemill.channels.onnx_list:run",
    tools=("onnx", "numpy"),
)
"""Settings: GeometrySettings. Input `onnx` (fp32); fact `layers`: the shapes for `measuring_plan`."""
