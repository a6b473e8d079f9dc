"""Stage: set weights to zero and fine-tune the rest."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.execute import Call
from edgemill.prune import PRUNE, PruneSettings
from edgemill.recipe import Prune, Recipe
from edgemill.store import StepRecord
from tasks.answers import teacher_answers
from tasks.run import perform


def prune(recipe: Recipe, settings: Prune, model: Model, teacher: Model, data: Artifact) -> StepRecord:
    """Prune a Keras model; the teacher is the ingested checkpoint."""
    inputs = {"keras": model.files["keras"], "teacher": teacher.files["onnx"], "data": data}
    if settings.distill:
        inputs |= teacher_answers(recipe, settings.augment, teacher.files["onnx"], data)
    call = Call(PRUNE, PruneSettings(**settings.model_dump(), task=recipe.task), inputs, seed=recipe.seed)
    return perform(call, model.name)
