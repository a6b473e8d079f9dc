"""Task: train a smaller student on the answers of the checkpoint."""

from __future__ import annotations

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.distill import DISTILL, DistillSettings
from edgemill.execute import Call
from edgemill.recipe import Distill, Recipe
from edgemill.store import StepRecord
from tasks.run import finished, run_step


@task(name="distill.student", task_run_name="distill {recipe.name}", cache_policy=NO_CACHE)
def distill(recipe: Recipe, settings: Distill, teacher: Model, data: Artifact) -> State[StepRecord]:
    """Distil the teacher into the student that the recipe describes."""
    inputs = {"teacher": teacher.files["onnx"], "data": data}
    if "keras" in teacher.files:
        inputs["keras"] = teacher.files["keras"]
    call = Call(
        DISTILL,
        DistillSettings(**settings.model_dump(), task=recipe.task),
        inputs,
        seed=recipe.seed,
        search_path=(str(Path(recipe.checkpoint.path).parent),),
    )
    return finished(run_step(call, recipe.name))
