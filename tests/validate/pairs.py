"""Predictions of a baseline and a variant, and a check of the gate on them."""

from __future__ import annotations

import numpy as np
from scipy import special

from edgemill.recipe import Gates, Task
from edgemill.validate.checks import declared_checks
from edgemill.validate.pair import Pair
from edgemill.validate.scores import score_samples


def classifiers(n: int, classes: int = 4, noise: float = 0.2, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)) + 4 * np.eye(classes)[labels]
    return pair(special.softmax(logits, 1), special.softmax(logits + noise * rng.normal(size=logits.shape), 1), labels)


def pair(baseline, variant, labels, task: Task = Task.CLASSIFICATION, samples=None, resamples: int = 999) -> Pair:
    baseline, variant = np.asarray(baseline, np.float32), np.asarray(variant, np.float32)
    scores = np.stack([score_samples(task, outputs, labels, baseline) for outputs in (baseline, variant)])
    return Pair(task, baseline, variant, labels, scores, lambda: samples, 0, resamples)


def one_hot(answers, classes: int):
    return np.eye(classes, dtype=np.float32)[np.asarray(answers)]


def check(pair: Pair, seconds: float = 60, **gate):
    (only,) = declared_checks(Gates.model_validate(gate), 0.95, seconds)
    return only.run(pair)
