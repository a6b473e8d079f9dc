"""Ingest: from a checkpoint in any accepted format to fp32 ONNX, and to Keras 2 where that is possible."""

from edgemill.step import Step

INGEST = Step(
    name="ingest.checkpoint",
    version=2,
    body="edgemill.ingest.checkpoint:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy"),
)

__all__ = ["INGEST"]
