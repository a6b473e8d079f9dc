"""Ingest: from a checkpoint in any accepted format to fp32 ONNX, and to Keras 2 where that is possible."""

from edgemill.artifact import Frozen
from edgemill.step import Step

INGEST = Step(
    name="ingest.checkpoint",
    version=2,
    body="edgemill.ingest.checkpoint:run",
    framework="tensorflow",
    tools=("tensorflow", "tf-keras", "keras", "tf2onnx", "onnx", "onnxruntime", "numpy"),
)

COUNT = Step(
    name="ingest.count",
    version=1,
    body="edgemill.ingest.count_step:run",
    tools=("onnx", "onnxruntime", "numpy"),
    time_limit_s=300.0,
)
"""inputs: onnx (fp32), data; settings: CountSettings; facts only, no file."""


class CountSettings(Frozen):
    """Settings of `ingest.count`: none."""


__all__ = ["COUNT", "INGEST", "CountSettings"]
