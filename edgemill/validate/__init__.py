"""Validation: predictions of the compiled file, the screen on validation data, the gate on test data."""

from __future__ import annotations

from pydantic import Field

from edgemill.artifact import Frozen
from edgemill.data.dataset import SplitName
from edgemill.emulate.machine import Machine
from edgemill.recipe import Budget, Gates, Scheme, Task
from edgemill.step import Step
from edgemill.validate.verdict import Decision, GateFacts, Verdict

__all__ = [
    "GATE",
    "OLDEST",
    "PREDICT",
    "SCREEN",
    "Decision",
    "GateFacts",
    "GateSettings",
    "OldestSettings",
    "PredictSettings",
    "Verdict",
]

PREDICT = Step(
    name="validate.predict",
    version=2,
    body="edgemill.validate.predict:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy"),
    time_limit_s=3600.0,
)
"""inputs: model, data; settings: PredictSettings; output: predictions."""

SCREEN = Step(
    name="validate.screen",
    version=2,
    body="edgemill.validate.gate:run",
    tools=("numpy", "scipy"),
    time_limit_s=1800.0,
)
"""The comparison of `GATE` on the validation split: what selection looks at."""

GATE = Step(
    name="validate.gate",
    version=2,
    body="edgemill.validate.gate:run",
    tools=("numpy", "scipy"),
    time_limit_s=1800.0,
)
"""inputs: variant, baseline (predictions on one split), data; settings: GateSettings; facts: GateFacts."""


OLDEST = Step(
    name="validate.oldest",
    version=1,
    body="edgemill.validate.oldest:run",
    tools=("onnxruntime", "ai-edge-litert", "numpy"),
    time_limit_s=600.0,
)
"""inputs: model, data, predictions (of the newest runtime); settings: OldestSettings; facts only, no file."""


class OldestSettings(Frozen):
    """Settings of `validate.oldest`."""

    split: SplitName = Field(default=SplitName.VALIDATION, description="split of the predictions")
    scheme: Scheme | None = Field(default=None, description="number format of the model; decides what counts as equal")
    samples: int = Field(default=500, gt=0, description="first samples of the split that are compared")


class PredictSettings(Frozen):
    """Settings of `validate.predict`."""

    split: SplitName = Field(description="validation for selection, test for the gate")
    task: Task
    threads: int = Field(default=1, gt=0, description="threads of the runtime")
    batch_size: int = Field(default=256, gt=0, description="samples between two reports of progress")
    machine: Machine | None = Field(
        default=None, description="what answers, see edgemill.emulate.machine.how_executed; None: this host as it is"
    )


class GateSettings(Frozen):
    """Settings of `validate.gate` (test split) and `validate.screen` (validation split)."""

    split: SplitName = Field(default=SplitName.TEST, description="split on which both predictions were made")
    task: Task
    budget: Budget
    gates: Gates = Field(default=Gates(), description="checks beside the budget, at the budget's confidence")
    resamples: int = Field(default=4999, ge=999, description="bootstrap resamples")
    metric_seconds: float = Field(default=120.0, gt=0, description="time budget of the recipe's own metric")
