"""Boards: devices that answer over SSH or a serial line, and what is asked of them from here."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.data.dataset import SplitName
from edgemill.recipe import Benchmark
from edgemill.step import Step
from edgemill.targets.spec import Target

__all__ = ["BOARD", "BoardSettings"]

BOARD = Step(
    name="benchmark.board",
    version=1,
    body="edgemill.boards.record:measure_and_keep",
    tools=("zstandard",),
    varies="it measures, and no two measurements are equal",
    time_limit_s=1800.0,
)
"""inputs: variant, baseline (fp32 onnx), data; settings: BoardSettings; outputs: samples, signed, predictions.

It runs in no child process: all that works here is the SSH client, and what runs on the board has limits of its own.
"""


class BoardSettings(Frozen):
    """Settings of `benchmark.board`."""

    target: Target
    benchmark: Benchmark = Benchmark()
    confidence: float = Field(0.95, gt=0.5, lt=1, description="two-sided confidence of the ratio's interval")
    timed: bool = Field(True, description="whether it is compared with the baseline; False: it only answers")
    answer: SplitName | None = Field(None, description="split whose samples the variant answers on the board")
