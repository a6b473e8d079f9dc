"""Stage: train a smaller student on the answers of the checkpoint."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.distill import DISTILL, DistillSettings
from edgemill.execute import Call
from edgemill.functions import function_identity, search_path
from edgemill.recipe import Distill, Recipe
from edgemill.store import StepRecord
from tasks.answers import teacher_answers
from tasks.run import perform


def distill(recipe: Recipe, settings: Distill, teacher: Model, data: Artifact) -> StepRecord:
    """Distil the teacher into the student that the recipe describes."""
    inputs = {"teacher": teacher.files["onnx"], "data": data}
    if "keras" in teacher.files:
        inputs["keras"] = teacher.files["keras"]
    inputs |= teacher_answers(recipe, settings.augment, teacher.files["onnx"], data)
    folder = Path(recipe.checkpoint.path).parent
    call = Call(
        DISTILL,
        DistillSettings(**settings.model_dump(), task=recipe.task),
        inputs,
        seed=recipe.seed,
        extra=function_identity(settings.student.function, folder),
        search_path=search_path(settings.student.function, folder),
    )
    return perform(call, recipe.name)
