"""Measure every candidate that stands up on validation data, then gate and choose, target by target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from edgemill.artifact import Artifact
from edgemill.benchmark.sustained_series import load_series
from edgemill.candidate import CHECKPOINT, Model
from edgemill.data import SplitName
from edgemill.emulate.machine import how_executed
from edgemill.errors import EdgemillError
from edgemill.evidence import Span, SustainedRun
from edgemill.recipe import Budget, Recipe
from edgemill.results import Attempt, Reference, judge
from edgemill.store import StepRecord
from edgemill.summary import TargetResult, VariantResult
from edgemill.targets import Target, load_target
from flows.boards import answer_at_board, measure_at_boards
from flows.measure import measure
from tasks.benchmark import sustain
from tasks.run import open_store, unvisited
from tasks.validate import compare, predict

_PICTURE_POINTS = 240


def measure_and_judge(
    recipe: Recipe, checkpoint: Model, attempts: Sequence[Attempt], data: Artifact
) -> list[TargetResult]:
    """The result of every target. The test split is read here only, and only for what is gated."""
    onnx = checkpoint.files["onnx"]

    @cache
    def baseline_on(split: SplitName) -> StepRecord:
        return predict(onnx, recipe, data, split, CHECKPOINT)

    def test(attempt: Attempt) -> StepRecord:
        assert attempt.answering is not None
        answers = answer_at_board(attempt, checkpoint, recipe, data, SplitName.TEST) or predict(
            attempt.answering, recipe, data, SplitName.TEST, attempt.subject, how_executed(attempt.target)
        )
        return compare(answers, baseline_on(SplitName.TEST), recipe, data, SplitName.TEST, attempt.subject)

    measure_at_boards(attempts, checkpoint, recipe, data)
    for attempt in attempts:
        measure(attempt, checkpoint, recipe, data)
    reference = Reference(
        checkpoint,
        baseline_on(SplitName.VALIDATION).facts.get("score"),
        lambda: baseline_on(SplitName.TEST).facts.get("score"),
    )
    judging = [
        _judge.submit(
            unvisited(target),
            unvisited([attempt for attempt in attempts if attempt.target.name == target.name]),
            unvisited(reference),
            unvisited(recipe.budget),
            unvisited(test),
            target.name,
        )
        for target in map(load_target, recipe.targets)
    ]
    results = [future.result() for future in judging]
    return [_with_sustained(result, attempts, recipe, data) for result in results]


@task(name="judge", task_run_name="judge {subject}", cache_policy=NO_CACHE)
def _judge(
    target: Target,
    attempts: Sequence[Attempt],
    reference: Reference,
    budget: Budget,
    test: Callable[[Attempt], StepRecord],
    subject: str,
) -> TargetResult:
    """Gate and choose for one target; beside the others, because an emulated CPU keeps one core busy for minutes."""
    return judge(target, attempts, reference, budget, test)


def _with_sustained(result: TargetResult, attempts: Sequence[Attempt], recipe: Recipe, data: Artifact) -> TargetResult:
    """The result with a long run of its default, where the recipe asks for one."""
    rule, chosen = recipe.benchmark.sustained, result.selected_variant
    if rule is None or chosen is None:
        return result
    attempt = next(item for item in attempts if item.target.name == result.target and item.name == chosen.candidate)
    assert attempt.file is not None
    if not attempt.target.timed:
        return _missing(result, chosen, "no time can be taken here")
    try:
        record = sustain(attempt.file, rule, attempt.target, recipe, data, attempt.subject)
    except EdgemillError as error:
        return _missing(result, chosen, str(error).replace("\n  ", "; "))
    known = {name: record.facts[name] for name in SustainedRun.model_fields if name in record.facts}
    known |= {name: _span(record.facts[name]) for name in ("first_minute", "steady_state")}
    series = record.outputs["series"]
    columns = load_series(open_store().path(series)).thinned(_PICTURE_POINTS)
    run = SustainedRun.model_validate(known | {"series": series.digest, "columns": columns})
    return result.model_copy(update={"sustained": run})


def _missing(result: TargetResult, chosen: VariantResult, why: str) -> TargetResult:
    """The result with a word on why its default had no long run."""
    noted = chosen.model_copy(update={"missing": (*chosen.missing, f"a long run: {why}")})
    variants = tuple(noted if item.candidate == chosen.candidate else item for item in result.variants)
    return result.model_copy(update={"variants": variants})


def _span(facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if facts is None else {name: facts[name] for name in Span.model_fields if name in facts}
