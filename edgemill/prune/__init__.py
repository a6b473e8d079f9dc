"""Prune: set weights to zero and fine-tune the rest."""

from edgemill.recipe import Prune, Task
from edgemill.step import Step


class PruneSettings(Prune):
    """Settings of the step: the recipe's, and the task."""

    task: Task


PRUNE = Step(
    name="prune.sparsity",
    version=2,
    body="edgemill.prune.sparsity:run",
    framework="tensorflow",
    tools=(
        "tensorflow",
        "tf-keras",
        "tensorflow-model-optimization",
        "tf2onnx",
        "onnx",
        "onnxruntime",
        "numpy",
    ),
)

__all__ = ["PRUNE", "PruneSettings"]
