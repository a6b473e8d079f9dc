"""Task: set weights to zero and fine-tune the rest."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.execute import Call
from edgemill.prune import PRUNE, PruneSettings
from edgemill.recipe import Prune, Recipe
from edgemill.store import StepRecord
from tasks.run import finished, run_step


@task(name="prune.sparsity", task_run_name="prune {model.name}", cache_policy=NO_CACHE)
def prune(recipe: Recipe, settings: Prune, model: Model, teacher: Model, data: Artifact) -> State[StepRecord]:
    """Prune a Keras model; the teacher is the ingested checkpoint."""
    call = Call(
        PRUNE,
        PruneSettings(**settings.model_dump(), task=recipe.task),
        {"keras": model.files["keras"], "teacher": teacher.files["onnx"], "data": data},
        seed=recipe.seed,
    )
    return finished(run_step(call, model.name))
