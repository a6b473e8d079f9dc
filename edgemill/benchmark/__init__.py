"""Measurement of a compiled file beside the fp32 checkpoint, alone on the machine."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.recipe import Benchmark
from edgemill.step import Step
from edgemill.targets.spec import Target

__all__ = ["BENCHMARK", "BenchmarkSettings"]

BENCHMARK = Step(
    name="benchmark.latency",
    version=1,
    body="edgemill.benchmark.latency:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy"),
    exclusive=True,
    time_limit_s=1800.0,
)
"""inputs: variant, baseline (fp32 onnx), data; settings: BenchmarkSettings; output: samples."""


class BenchmarkSettings(Frozen):
    """Settings of `benchmark.latency`."""

    benchmark: Benchmark = Benchmark()
    target: Target = Field(description="decides how the figures are named: measured, or only a proxy")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="two-sided confidence of the ratio's interval")
    resamples: int = Field(4999, ge=999, description="bootstrap resamples")
