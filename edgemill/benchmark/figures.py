"""Step body: figures of a variant for a device whose times cannot be taken here."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.benchmark import FiguresSettings
from edgemill.benchmark.sizes import COMPRESSION, TRANSFER_COMPRESSION, sizes
from edgemill.step import InputFile, Outputs, StepContext

UNTIMED = "untimed"
"""Provenance of the times where there are none."""


def run(settings: FiguresSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Put the sizes of the files beside what the device's tools say.

    Inputs:
        variant: the compiled file or folder.
        baseline: the checkpoint as fp32 onnx.

    Facts: `device` (`DeviceFigures`), `source` of the times (untimed where there is none), `latency_p50_ms`,
    and of both files `size_bytes`, `compressed_bytes`, `transfer_bytes` (baseline: prefix `baseline_`).
    """
    device = settings.device
    own = sizes(inputs["variant"].path)
    baseline = {f"baseline_{name}": value for name, value in sizes(inputs["baseline"].path).items()}
    context.report(1.0, "figures of the device's tools")
    facts = (
        own
        | baseline
        | {
            "device": device.model_dump(mode="json"),
            "source": UNTIMED if device.latency_ms is None else device.source,
            "latency_p50_ms": device.latency_ms,
            "compression": COMPRESSION,
            "transfer_compression": TRANSFER_COMPRESSION,
        }
    )
    return Outputs(facts=facts)
