"""Measure every candidate that stands up on validation data, then gate and choose, target by target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from edgemill.artifact import Artifact
from edgemill.candidate import CHECKPOINT, Model
from edgemill.data import SplitName
from edgemill.errors import EdgemillError
from edgemill.recipe import Recipe
from edgemill.results import Attempt, Reference, judge
from edgemill.store import StepRecord
from edgemill.summary import TargetResult
from edgemill.targets import load_target
from tasks.benchmark import benchmark
from tasks.validate import compare, predict


def measure_and_judge(
    recipe: Recipe, checkpoint: Model, attempts: Sequence[Attempt], data: Artifact
) -> list[TargetResult]:
    """The result of every target. The test split is read here only, and only for what is gated."""
    onnx = checkpoint.files["onnx"]

    @cache
    def baseline_on(split: SplitName) -> StepRecord:
        return predict(onnx, recipe, data, split, CHECKPOINT)

    def test(attempt: Attempt) -> StepRecord:
        assert attempt.file is not None
        answers = predict(attempt.file, recipe, data, SplitName.TEST, attempt.subject)
        return compare(answers, baseline_on(SplitName.TEST), recipe, data, SplitName.TEST, attempt.subject)

    for attempt in attempts:
        if attempt.worth_measuring and attempt.file is not None:
            try:
                attempt.measured = benchmark(attempt.file, onnx, attempt.target, recipe, data, attempt.subject)
            except EdgemillError as error:
                attempt.failure = error
    reference = Reference(
        checkpoint,
        baseline_on(SplitName.VALIDATION).facts.get("score"),
        lambda: baseline_on(SplitName.TEST).facts.get("score"),
    )
    return [
        judge(
            target,
            [attempt for attempt in attempts if attempt.target.name == target.name],
            reference,
            recipe.budget,
            test,
        )
        for target in map(load_target, recipe.targets)
    ]
