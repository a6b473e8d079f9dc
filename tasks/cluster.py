"""Stage: let weights share a few values."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.cluster import CLUSTER, ClusterSettings
from edgemill.execute import Call
from edgemill.recipe import Cluster, Recipe
from edgemill.store import StepRecord
from tasks.answers import teacher_answers
from tasks.run import perform


def cluster(recipe: Recipe, settings: Cluster, model: Model, teacher: Model, data: Artifact) -> StepRecord:
    """Cluster the weights of a Keras model; the teacher is the ingested checkpoint."""
    inputs = {"keras": model.files["keras"], "teacher": teacher.files["onnx"], "data": data}
    if settings.distill:
        inputs |= teacher_answers(recipe, settings.augment, teacher.files["onnx"], data)
    call = Call(CLUSTER, ClusterSettings(**settings.model_dump(), task=recipe.task), inputs, seed=recipe.seed)
    return perform(call, model.name)
