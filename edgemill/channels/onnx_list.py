"""Step `channels.geometry_onnx`: shapes of an ONNX graph's layers with a kernel, to measure their latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from edgemill.channels.latency_steps import GeometrySettings
from edgemill.channels.onnx_graph import follow
from edgemill.channels.onnx_prepare import read_model
from edgemill.step import InputFile, Outputs, StepContext


def run(settings: GeometrySettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """List the layers.

    Args:
        settings: none.
        inputs: `onnx` (fp32).
        context: not used.

    Returns:
        fact `layers`: the fields of `edgemill.channels.cost.LayerShape` of each.

    Raises:
        CheckpointError: the file cannot be read.
    """
    channels = follow(read_model(inputs["onnx"].path))
    return Outputs(facts={"layers": [asdict(use.shape) for use in channels.map.uses]})
