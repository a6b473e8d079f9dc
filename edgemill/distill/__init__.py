"""Distill: train a smaller student on the answers of the checkpoint."""

from edgemill.recipe import Distill, Task
from edgemill.step import Step


class DistillSettings(Distill):
    """Settings of the step: the recipe's, and the task."""

    task: Task


DISTILL = Step(
    name="distill.student",
    version=2,
    body="edgemill.distill.student:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "tf2onnx", "onnx", "onnxruntime", "numpy"),
)

__all__ = ["DISTILL", "DistillSettings"]
