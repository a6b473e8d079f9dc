"""Measurement of a compiled file beside the fp32 checkpoint, alone on the machine."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Benchmark
from edgemill.step import Step
from edgemill.targets.spec import Target

__all__ = [
    "BENCHMARK",
    "CAUSES",
    "FIGURES",
    "SUSTAINED",
    "BenchmarkSettings",
    "CausesSettings",
    "FiguresSettings",
    "SustainedSettings",
]

_MEASURES = "it measures, and no two measurements are equal"

BENCHMARK = Step(
    name="benchmark.latency",
    version=3,
    body="edgemill.benchmark.latency:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy", "zstandard"),
    exclusive=True,
    varies=_MEASURES,
    time_limit_s=1800.0,
)
"""inputs: variant, baseline (fp32 onnx), data; settings: BenchmarkSettings; output: samples."""


class BenchmarkSettings(Frozen):
    """Settings of `benchmark.latency`."""

    benchmark: Benchmark = Benchmark()
    target: Target = Field(description="decides how the figures are named: measured, or only a proxy")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="two-sided confidence of the ratio's interval")


FIGURES = Step(
    name="benchmark.figures",
    version=1,
    body="edgemill.benchmark.figures:run",
    tools=("zstandard",),
    time_limit_s=300.0,
)
"""inputs: variant, baseline (fp32 onnx); settings: FiguresSettings; facts only, no file."""


class FiguresSettings(Frozen):
    """Settings of `benchmark.figures`."""

    device: DeviceFigures = Field(description="from the facts of the compile step")


CAUSES = Step(
    name="benchmark.causes",
    version=1,
    body="edgemill.benchmark.causes:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy", "onnx"),
    exclusive=True,
    varies=_MEASURES,
    time_limit_s=300.0,
)
"""inputs: variant, baseline (fp32 onnx), data; settings: CausesSettings; facts only, no file."""


class CausesSettings(Frozen):
    """Settings of `benchmark.causes`."""

    threads: int = Field(1, gt=0, description="threads of the runtime, as in the benchmark")
    batch: int = Field(1, gt=0, description="samples per inference, as in the benchmark")


SUSTAINED = Step(
    name="benchmark.sustained",
    version=1,
    body="edgemill.benchmark.sustained:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy", "ruptures"),
    exclusive=True,
    varies=_MEASURES,
    time_limit_s=5 * 3600.0,
)
"""inputs: variant, data; settings: SustainedSettings; output: series."""


class SustainedSettings(Frozen):
    """Settings of `benchmark.sustained`."""

    minutes: float = Field(3.0, gt=0, le=240, description="how long the model runs")
    threads: int = Field(1, gt=0, description="threads of the runtime")
    batch: int = Field(1, gt=0, description="samples per inference")
    window_s: float = Field(1.0, gt=0, le=60, description="seconds over which each recorded value is taken")
    target: Target | None = Field(None, description="what the figures are for; None: this machine")
