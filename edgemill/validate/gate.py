"""Step body: paired comparison of a variant's predictions with the baseline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset
from edgemill.errors import DataError, QualityGateError
from edgemill.recipe import Task
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.validate import GateSettings
from edgemill.validate.auc import compare_auc, reversed_ranking
from edgemill.validate.checks import Check, declared_checks
from edgemill.validate.decide import main_question
from edgemill.validate.faults import Broken, Fault, find_fault, find_label_fault
from edgemill.validate.pair import Checked, Pair, broken
from edgemill.validate.paired_mean import compare_real
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.scores import (
    anomaly_labels,
    anomaly_scores,
    count_non_finite,
    flip_rate,
    reconstructs,
    score_samples,
    split_score,
)
from edgemill.validate.verdict import GateFacts, Verdict, combine

SCORES = "scores.npy"

_WITHOUT_ANSWERS = (Fault.WRONG_SHAPE, Fault.NON_FINITE)
_COUNTED = (Task.CLASSIFICATION, Task.UNLABELLED)


def run(settings: GateSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Gate (or screen) one variant.

    Every declared check gets a verdict. Where predictions or labels are broken (see
    `edgemill.validate.faults`), each of them is a FAIL with the cause.

    Inputs:
        variant: predictions on `settings.split`.
        baseline: predictions of the baseline on the same split.
        data: dataset.

    Outputs:
        scores: float64 (2, N), .npy: per-sample scores of baseline and variant (anomaly scores for
            ANOMALY); absent where labels are broken, or predictions have the wrong shape or NaN.

    Facts: those of `GateFacts`.

    Raises:
        QualityGateError: the baseline itself is broken, so nothing can be compared with it.
        DataError: labels or outputs do not fit the task.
        RecipeError: a check cannot be made of this model, or a function of the recipe fails.
    """
    data = Dataset(inputs["data"].path)
    baseline, variant = _load(inputs["baseline"]), _load(inputs["variant"])
    labels = None if settings.task is Task.UNLABELLED else data.labels(settings.split)
    _check_baseline(baseline, data, settings)
    checks = declared_checks(settings.gates, settings.budget.confidence, settings.metric_seconds)
    what = find_label_fault(labels, baseline, settings.task)
    if what is not None:
        return Outputs(facts=_broken(settings, checks, len(baseline), what).model_dump(mode="json"))
    usual = _scores(settings, baseline, labels, baseline, data)
    reference = _mean(settings.task, usual, labels)
    what = find_fault(variant, baseline, settings.task)
    if what is not None and what.fault in _WITHOUT_ANSWERS:
        facts = _broken(settings, checks, len(baseline), what, baseline_accuracy=reference)
        return Outputs(facts=facts.model_dump(mode="json"))
    scores = np.stack([usual, _scores(settings, variant, labels, baseline, data)])
    pair = Pair(
        task=settings.task,
        baseline=baseline,
        variant=variant,
        labels=labels,
        scores=scores,
        samples=lambda: data.raw(settings.split),
        seed=context.seed,
        resamples=settings.resamples,
    )
    if what is not None:
        facts = _broken(settings, checks, len(baseline), what, **_figures(pair))
    else:
        facts = _facts(_check_all(settings, pair, checks, context), **_figures(pair))
    path = context.out / SCORES
    np.save(path, scores, allow_pickle=False)
    return Outputs(files={"scores": OutputFile(path, kind="scores")}, facts=facts.model_dump(mode="json"))


def _check_all(settings: GateSettings, pair: Pair, checks: tuple[Check, ...], context: StepContext) -> list[Checked]:
    found = [Checked(_main(settings, pair))]
    for number, check in enumerate(checks, start=1):
        context.report(number / (len(checks) + 1), check.question.gate)
        found.append(check.run(pair))
    return found


def _figures(pair: Pair) -> dict[str, Any]:
    usual, ours = pair.scores
    counted = pair.task in _COUNTED
    return {
        "accuracy": _mean(pair.task, ours, pair.labels),
        "baseline_accuracy": _mean(pair.task, usual, pair.labels),
        "lost": int(np.count_nonzero(usual > ours)) if counted else None,
        "won": int(np.count_nonzero(usual < ours)) if counted else None,
        "flip_rate": flip_rate(pair.task, pair.variant, pair.baseline),
    }


def _main(settings: GateSettings, pair: Pair) -> Verdict:
    usual, ours = pair.scores
    if settings.task is Task.REGRESSION:
        return compare_real(usual, ours, settings.budget, pair.seed, settings.resamples)
    if settings.task is Task.ANOMALY:
        return compare_auc(usual, ours, anomaly_labels(pair.labels, pair.n), settings.budget)
    return compare_binary(usual, ours, settings.budget)


def _facts(found: list[Checked], **numbers: Any) -> GateFacts:
    verdicts = tuple(item.verdict for item in found)
    fault = next((item.fault for item in found if item.fault is not None), None)
    groups = tuple(group for item in found for group in item.groups)
    return GateFacts(verdict=combine(verdicts), checks=verdicts, groups=groups, fault=fault, **numbers)


def _broken(settings: GateSettings, checks: tuple[Check, ...], n: int, what: Broken, **numbers: Any) -> GateFacts:
    questions = [main_question(settings.budget), *(check.question for check in checks)]
    return _facts([broken(question, n, what) for question in questions], **({"baseline_accuracy": None} | numbers))


def _scores(
    settings: GateSettings,
    outputs: NDArray[np.float32],
    labels: NDArray[np.generic] | None,
    baseline: NDArray[np.float32],
    data: Dataset,
) -> NDArray[np.float64]:
    if settings.task is not Task.ANOMALY:
        return score_samples(settings.task, outputs, labels, baseline)
    x = data.features(settings.split) if reconstructs(outputs, data.sample_shape) else None
    scores = anomaly_scores(outputs, x)
    if outputs is baseline and reversed_ranking(scores, anomaly_labels(labels, len(scores)), settings.budget):
        raise QualityGateError(
            "The checkpoint itself ranks anomalous samples below normal ones.",
            where=f"split {settings.split}",
            expected="a higher output, or reconstruction error, for label 1",
            got=f"an area under the ROC curve of {_mean(settings.task, scores, labels):.4g}",
            remedy="turn the labels round, or make the model answer with the negated score",
        )
    return scores


def _check_baseline(baseline: NDArray[np.float32], data: Dataset, settings: GateSettings) -> None:
    expected = data.sizes[str(settings.split)]
    if len(baseline) != expected:
        raise DataError(
            "The baseline's predictions were made on another split.",
            where=f"split {settings.split}",
            expected=f"{expected} samples",
            got=f"{len(baseline)}",
        )
    bad = count_non_finite(baseline)
    if bad:
        raise QualityGateError(
            "The checkpoint itself answers with NaN or infinity; nothing can be compared with it.",
            where=f"split {settings.split}",
            got=f"{bad} such output values",
            remedy="check the checkpoint's weights and the preprocess section of the recipe",
        )


def _load(file: InputFile) -> NDArray[np.float32]:
    loaded: NDArray[np.float32] = np.load(file.path, mmap_mode="r", allow_pickle=False)
    return loaded


def _mean(task: Task, scores: NDArray[np.float64], labels: NDArray[np.generic] | None) -> float | None:
    """Score of the split from scores of samples."""
    if task is Task.ANOMALY:
        return split_score(task, scores[:, None], labels)
    return float(scores.mean()) if scores.size else None
