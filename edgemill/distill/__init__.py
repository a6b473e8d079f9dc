"""Distill: train a smaller student on the answers of the checkpoint."""

from edgemill.artifact import Frozen
from edgemill.recipe import Augment, Distill, Task
from edgemill.step import Step


class DistillSettings(Distill):
    """Settings of the step: the recipe's, and the task."""

    task: Task


class AnswersSettings(Frozen):
    """Settings of `distill.answers`: what everything that trains on the same views shares."""

    task: Task
    augment: Augment


DISTILL = Step(
    name="distill.student",
    version=3,
    body="edgemill.distill.student:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "tf2onnx", "onnx", "onnxruntime", "numpy"),
)

ANSWERS = Step(
    name="distill.answers",
    version=1,
    body="edgemill.distill.answers:run",
    tools=("onnx", "onnxruntime", "numpy"),
)

__all__ = ["ANSWERS", "DISTILL", "AnswersSettings", "DistillSettings"]
