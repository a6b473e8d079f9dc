"""Stage: predict a split with the compiled file, and compare with the checkpoint's answers."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.validate import GATE, PREDICT, SCREEN, GateSettings, PredictSettings
from tasks.run import perform


def predict(model: Artifact, recipe: Recipe, data: Artifact, split: SplitName, subject: str) -> StepRecord:
    """Answer every sample of a split with the compiled file, through the target's own runtime."""
    call = Call(PREDICT, PredictSettings(split=split, task=recipe.task), {"model": model, "data": data})
    return perform(call, f"{split} {subject}")


def compare(
    variant: StepRecord, baseline: StepRecord, recipe: Recipe, data: Artifact, split: SplitName, subject: str
) -> StepRecord:
    """Paired comparison with the checkpoint: a screen on validation data, the gate on test data."""
    call = Call(
        GATE if split is SplitName.TEST else SCREEN,
        GateSettings(task=recipe.task, budget=recipe.budget, split=split),
        {"variant": variant.outputs["predictions"], "baseline": baseline.outputs["predictions"], "data": data},
        seed=recipe.seed,
    )
    return perform(call, subject)
