"""Tasks: predict a split with the compiled file, and compare with the checkpoint's answers."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.validate import GATE, PREDICT, GateSettings, PredictSettings
from tasks.run import finished, run_step


@task(name="validate.predict", task_run_name="predict {split} {subject}", cache_policy=NO_CACHE)
def predict(
    model: StepRecord | Artifact, recipe: Recipe, data: Artifact, split: SplitName, subject: str
) -> State[StepRecord]:
    """Answer every sample of a split with the compiled file, through the target's own runtime."""
    compiled = model if isinstance(model, Artifact) else model.outputs["model"]
    call = Call(PREDICT, PredictSettings(split=split, task=recipe.task), {"model": compiled, "data": data})
    return finished(run_step(call, f"{split} {subject}"))


@task(name="validate.gate", task_run_name="gate {split} {subject}", cache_policy=NO_CACHE)
def gate(
    variant: StepRecord, baseline: StepRecord, recipe: Recipe, data: Artifact, split: SplitName, subject: str
) -> State[StepRecord]:
    """Paired comparison with the checkpoint: a screen on validation data, the gate on test data."""
    call = Call(
        GATE,
        GateSettings(task=recipe.task, budget=recipe.budget, split=split),
        {
            "variant": variant.outputs["predictions"],
            "baseline": baseline.outputs["predictions"],
            "data": data,
        },
        seed=recipe.seed,
    )
    return finished(run_step(call, f"{split} {subject}"))
