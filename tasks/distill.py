"""Stage: train a smaller student on the answers of the checkpoint."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.distill import DISTILL, DistillSettings
from edgemill.execute import Call
from edgemill.recipe import Distill, Recipe
from edgemill.store import StepRecord
from tasks.run import perform


def distill(recipe: Recipe, settings: Distill, teacher: Model, data: Artifact) -> StepRecord:
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
    return perform(call, recipe.name)
