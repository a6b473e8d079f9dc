"""What fine-tuning minimises: the labels, and where the recipe says so the checkpoint's answers."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.recipe import Task, Tuning
from edgemill.step import InputFile
from edgemill.train import WITHOUT_LABELS
from edgemill.train.answers import Answers
from edgemill.train.objective import Objective
from edgemill.train.teacher import Teacher


def tuning_objective(rule: Tuning, task: Task, inputs: Mapping[str, InputFile]) -> Objective:
    """The objective of a stage that fine-tunes.

    Args:
        rule: of the stage.
        task: without labels, the checkpoint's answers are all there is to learn from.
        inputs: `teacher` (onnx of the checkpoint) where it is asked; `answers` (optional, of `distill.answers`).
    """
    if task in WITHOUT_LABELS:
        weight = 1.0
    elif rule.distill:
        weight = rule.soft_weight
    else:
        return Objective(task, None)
    teacher = Teacher(inputs["teacher"].path) if "teacher" in inputs else None
    return Objective(task, teacher, rule.temperature, weight, answers=Answers.given(inputs))
