"""What a check looks at, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.recipe import Budget, Task
from edgemill.validate.faults import Broken, Fault
from edgemill.validate.question import Question
from edgemill.validate.verdict import Group, Verdict


@dataclass(frozen=True)
class Pair:
    """Answers of baseline and variant to the same samples, in the same order, all finite.

    Attributes:
        task: what the answers mean.
        baseline: float32 (N, ...).
        variant: float32 (N, ...), of the same shape.
        labels: (N, ...); None where the task has none.
        scores: float64 (2, N), of baseline and variant, see `score_samples`.
        samples: gives the stored samples (N, *sample_shape), not preprocessed.
        seed: of resampling.
        resamples: of the bootstrap.
    """

    task: Task
    baseline: NDArray[np.float32]
    variant: NDArray[np.float32]
    labels: NDArray[Any] | None
    scores: NDArray[np.float64]
    samples: Callable[[], NDArray[Any]]
    seed: int
    resamples: int

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.baseline)

    @property
    def truth(self) -> NDArray[Any]:
        """Labels of a task that has them, one row of them a sample."""
        assert self.labels is not None, "the recipe allows this check for labelled tasks only"
        return self.labels


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    verdict: Verdict
    groups: tuple[Group, ...] = ()
    fault: Fault | None = None


def broken(question: Question, n: int, what: Broken) -> Checked:
    """FAIL with the name of what is broken."""
    return Checked(question.failed(n, what.reason), fault=what.fault)


def budget_of(question: Question) -> Budget:
    """The margin and confidence of a question in the form that the paired tests take."""
    return Budget(max_accuracy_drop=question.margin, confidence=question.confidence)


def renamed(verdict: Verdict, question: Question) -> Verdict:
    """A verdict of a paired test of accuracy, under the name of another check."""
    reason = verdict.reason.replace("the drop", question.what, 1)
    return verdict.model_copy(update={"gate": question.gate, "unit": question.unit, "reason": reason})
