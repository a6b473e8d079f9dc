"""Step body: paired comparison of a variant's predictions with the baseline's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset
from edgemill.errors import DataError, QualityGateError
from edgemill.recipe import Task
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.validate import GateSettings
from edgemill.validate.decide import failed
from edgemill.validate.paired_mean import compare_real
from edgemill.validate.paired_proportions import compare_binary
from edgemill.validate.scores import count_non_finite, find_fault, flip_rate, score_samples
from edgemill.validate.verdict import GateFacts, Verdict

SCORES = "scores.npy"


def run(settings: GateSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Gate (or screen) one variant.

    Inputs:
        variant: predictions on `settings.split`.
        baseline: predictions of the baseline on the same split.
        data: dataset.

    Outputs:
        scores: float64 (2, N), .npy: per-sample scores of baseline and variant; absent where the
            variant's predictions are broken.

    Facts: those of `GateFacts`.

    Raises:
        QualityGateError: the baseline itself is broken, so nothing can be compared with it.
    """
    data = Dataset(inputs["data"].path)
    baseline = _load(inputs["baseline"])
    variant = _load(inputs["variant"])
    labels = None if settings.task is Task.UNLABELLED else data.labels(settings.split)
    _check_baseline(baseline, data, settings)
    usual = score_samples(settings.task, baseline, labels, baseline)
    broken = find_fault(variant, baseline, settings.task)
    if broken is not None:
        verdict = failed(settings.budget, len(baseline), f"{broken.fault}: {broken.text}")
        facts = GateFacts(verdict=verdict, baseline_accuracy=_mean(usual), fault=broken.fault)
        return Outputs(facts=facts.model_dump(mode="json"))
    ours = score_samples(settings.task, variant, labels, baseline)
    facts = GateFacts(
        verdict=_compare(settings, usual, ours, context.seed),
        accuracy=_mean(ours),
        baseline_accuracy=_mean(usual),
        lost=None if settings.task is Task.REGRESSION else int(np.count_nonzero(usual > ours)),
        won=None if settings.task is Task.REGRESSION else int(np.count_nonzero(usual < ours)),
        flip_rate=flip_rate(settings.task, variant, baseline),
    )
    path = context.out / SCORES
    np.save(path, np.stack([usual, ours]), allow_pickle=False)
    return Outputs(files={"scores": OutputFile(path, kind="scores")}, facts=facts.model_dump(mode="json"))


def _compare(settings: GateSettings, baseline: NDArray[np.float64], variant: NDArray[np.float64], seed: int) -> Verdict:
    if settings.task is Task.REGRESSION:
        return compare_real(baseline, variant, settings.budget, seed, settings.resamples)
    return compare_binary(baseline, variant, settings.budget)


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


def _mean(scores: NDArray[np.float64]) -> float:
    return float(scores.mean()) if scores.size else 0.0
