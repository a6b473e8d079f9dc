"""Step body: how large an fp32 model is."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgemill.data.dataset import Dataset
from edgemill.ingest import CountSettings
from edgemill.ingest.count import count
from edgemill.step import InputFile, Outputs, StepContext


def run(settings: CountSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Count for one sample.

    Inputs:
        onnx: fp32.
        data: dataset; gives the shape of a sample where the model leaves it open.

    Facts: `parameters`, and `macs`, multiply-accumulates of one sample.

    Raises:
        ToolchainError: a shape cannot be found, neither by inference nor by running the graph.
    """
    counts = count(onnx.load(str(inputs["onnx"].path)), Dataset(inputs["data"].path).sample_shape)
    context.report(1.0, f"{counts.macs} MACs")
    return Outputs(facts={"parameters": counts.parameters, "macs": counts.macs})
