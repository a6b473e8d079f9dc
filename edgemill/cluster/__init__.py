"""Cluster: let the weights of a layer share a few values, in a form that survives folding and quantization."""

from edgemill.recipe import Cluster, Task
from edgemill.step import Step


class ClusterSettings(Cluster):
    """Settings of the step: the recipe's, and the task."""

    task: Task


CLUSTER = Step(
    name="cluster.weights",
    version=1,
    body="edgemill.cluster.weights:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy"),
)
"""Inputs `keras`, `teacher` (onnx of the checkpoint), `data`; outputs `keras`, `onnx`."""

__all__ = ["CLUSTER", "ClusterSettings"]
