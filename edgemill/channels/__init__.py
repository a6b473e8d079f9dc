"""Channels: remove whole channels, so that fewer multiplications are left, and fine-tune the rest."""

from edgemill.recipe import Task
from edgemill.recipe.stages import Channels
from edgemill.step import Step


class ChannelsSettings(Channels):
    """Settings of the step: the recipe's, and the task."""

    task: Task


CHANNELS = Step(
    name="channels.prune",
    version=1,
    body="edgemill.channels.prune:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "tf2onnx", "onnx", "onnxruntime", "numpy"),
)
"""Inputs `keras`, `teacher` (onnx of the checkpoint), `data`, and `latency` (a latency table) where cost is latency.

Outputs `keras`, `onnx`.
"""

__all__ = ["CHANNELS", "ChannelsSettings"]
