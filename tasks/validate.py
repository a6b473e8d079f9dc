"""Stage: predict a split with the compiled file, in its target's arithmetic, and compare with the checkpoint."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.emulate.machine import Machine
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.validate.call import compare_call, predict_call
from edgemill.validate.divergence import DIVERGENCE, Divergence, DivergenceSettings
from tasks.run import perform


def predict(
    model: Artifact, recipe: Recipe, data: Artifact, split: SplitName, subject: str, machine: Machine | None = None
) -> StepRecord:
    """Answer every sample of a split with the compiled file, through the target's own runtime.

    Args:
        machine: in whose arithmetic; None: this host's.
    """
    return perform(predict_call(model, recipe, data, split, machine), f"{split} {subject}")


def compare(
    variant: StepRecord, baseline: StepRecord, recipe: Recipe, data: Artifact, split: SplitName, subject: str
) -> StepRecord:
    """Paired comparison with the checkpoint: a screen on validation data, the gate on test data."""
    answers, usual = variant.outputs["predictions"], baseline.outputs["predictions"]
    return perform(compare_call(answers, usual, recipe, data, split), subject)


def diverge(model: Artifact, data: Artifact, machine: Machine, subject: str) -> Divergence:
    """Compare the target's answers with those of exact arithmetic, on validation data."""
    call = Call(DIVERGENCE, DivergenceSettings(machine=machine), {"model": model, "data": data})
    return Divergence.model_validate(perform(call, subject).facts)
