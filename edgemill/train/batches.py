"""Batches of an epoch: shuffled, augmented and answered by the teacher one step ahead of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Training
from edgemill.train.answers import Answers, Views
from edgemill.train.augment import augment, draw, image_axes
from edgemill.train.teacher import Teacher

_AHEAD = 3
_KEEP_ANSWERS_BYTES = 1 << 30


@dataclass(frozen=True)
class Batch:
    """One training step's material: inputs, labels if any, and the teacher's answers if any."""

    x: NDArray[np.float32]
    y: NDArray[np.generic] | None
    soft: NDArray[np.float32] | None
    maps: tuple[NDArray[np.float32], ...]


class Batches:
    """The training split as batches.

    The order and the augmentation of an epoch depend on (seed, epoch) only, so that a run which
    goes on after a kill sees what the undisturbed run would have seen. With fixed views (see
    `Views`; samples that nothing changes are one view) an epoch shows one of them, and the teacher
    is asked once for each.

    Args:
        data: the dataset.
        labels: labels of the training split, or None.
        settings: batch size (an incomplete last batch is left out unless it is the only one) and augmentation.
        teacher: answers the same augmented inputs, or None.
        seed: seed of order and augmentation.
        logits: whether the teacher gives logits (classification) or its own output.
        answers: the teacher's answers where they are known already; the views are then theirs.

    Raises:
        InvariantError: `answers` are to other samples.
    """

    def __init__(
        self,
        data: Dataset,
        labels: NDArray[np.generic] | None,
        settings: Training,
        teacher: Teacher | None,
        seed: int,
        *,
        logits: bool,
        answers: Answers | None = None,
    ) -> None:
        self._data = data
        self._raw = data.raw(SplitName.TRAIN)
        self._labels = labels
        self._size = min(settings.batch_size, len(self._raw))
        self._rule = settings.augment
        self._teacher = teacher
        self._logits = logits
        self._seed = seed
        self._views: Views | None = None
        self._known: dict[int, NDArray[np.float32]] = {}
        if not self._rule.changes or self._rule.views is not None:
            self._views = Views(data, self._rule, seed if answers is None else answers.seed)
        if self._rule.changes:
            image_axes(data.sample_shape)
        if answers is not None:
            answers.check(self._rule, len(self._raw), logits)
            if teacher is not None and not teacher.features:
                self._known = dict(enumerate(answers.values))

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._raw) // self._size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch, counted from 0."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._raw))
        view = None if self._views is None else epoch % self._views.count
        if view is not None:
            self._answer(view)
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for step in range(self.steps):
                # One worker, so the draws from rng come in the order of the steps.
                chosen = order[step * self._size : (step + 1) * self._size]
                waiting.append(pool.submit(self._make, chosen, view, rng))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _make(self, chosen: NDArray[np.int64], view: int | None, rng: np.random.Generator) -> Batch:
        if self._views is None or view is None:
            stored = self._raw[chosen]
            x = self._data.prepare(augment(stored, self._rule, draw(len(stored), self._rule, rng)))
        else:
            x = self._views.features(view, chosen)
        y = None if self._labels is None else self._labels[chosen]
        if view in self._known:
            return Batch(x, y, self._known[view][chosen], ())
        if self._teacher is None:
            return Batch(x, y, None, ())
        soft, *maps = self._teacher.answers(x, self._logits)
        return Batch(x, y, soft, tuple(maps))

    def _answer(self, view: int) -> None:
        """Ask the teacher for a whole view where its answers are small enough to keep."""
        if self._views is None or self._teacher is None or self._teacher.features or view in self._known:
            return
        ask = self._teacher.logits if self._logits else self._teacher.outputs
        first = ask(self._views.features(view, np.arange(1)))
        if first.nbytes * len(self._raw) * self._views.count <= _KEEP_ANSWERS_BYTES:
            self._known[view] = self._views.answers(view, self._teacher, self._logits)
