"""The checkpoint's answers to the views of the training samples, asked once for everything that learns from them."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.artifact import Artifact
from edgemill.distill import ANSWERS, AnswersSettings
from edgemill.execute import Call
from edgemill.recipe import Augment, Recipe
from tasks.run import perform


def teacher_answers(recipe: Recipe, augment: Augment, teacher: Artifact, data: Artifact) -> Mapping[str, Artifact]:
    """The input `answers` of a step that trains with this augmentation; none where views are not fixed.

    Args:
        teacher: ONNX of the ingested checkpoint.
    """
    if augment.views is None or not augment.changes:
        return {}
    settings = AnswersSettings(task=recipe.task, augment=augment)
    call = Call(ANSWERS, settings, {"teacher": teacher, "data": data}, seed=recipe.seed)
    return perform(call, recipe.name).outputs
