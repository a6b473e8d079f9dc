"""Training samples on which channels are judged and batch normalization is measured again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Task
from edgemill.tf import tf
from edgemill.train import WITHOUT_LABELS
from edgemill.train.loop import Objective
from edgemill.train.objective import Answer, answer_kind, loss_of

_LABELS_ALONE = Objective(Task.CLASSIFICATION, None)
_SMALL, _SMALL_BATCHES = 16, 64
_LARGE, _LARGE_BATCHES = 256, 8


class Sampler:
    """Some training samples, the same at every call, and what the model should answer to them.

    Where there are labels, they are it. Without labels the teacher is followed; but a model that answers like
    its teacher is at the minimum of their distance, and first-order changes vanish there. So classes are drawn
    from the teacher's probabilities, and values are multiplied with random signs: the mean square of the
    change is then the second-order change of the distance (Fisher information; Theis et al. 2018, "Faster gaze
    prediction with dense networks and Fisher pruning", section 2.2).

    Args:
        model: whose answers are judged.
        data: dataset.
        objective: task, and the teacher for tasks without labels.
        seed: of what is drawn.
    """

    def __init__(self, model: Any, data: Dataset, objective: Objective, seed: int) -> None:
        self._data, self._objective = data, objective
        self._kind = answer_kind(model, objective.task, data)
        self._outputs = tuple(model.output_shape[1:])
        self._seed = seed
        size = data.sizes[SplitName.TRAIN]
        self._chosen = np.random.default_rng([seed, size]).permutation(size)

    def small(self) -> Iterator[tuple[NDArray[np.float32], NDArray[np.generic]]]:
        """Batches of 16 (1024 samples at most): inputs, and what `loss` takes as wanted."""
        rng = np.random.default_rng([self._seed, 1])
        for chosen in self._split(_SMALL, _SMALL_BATCHES):
            x = self._data.prepare(self._data.raw(SplitName.TRAIN)[chosen])
            yield x, self._wanted(x, chosen, rng)

    def large(self) -> Iterator[NDArray[np.float32]]:
        """Batches of 256 (2048 samples at most)."""
        for chosen in self._split(_LARGE, _LARGE_BATCHES):
            yield self._data.prepare(self._data.raw(SplitName.TRAIN)[chosen])

    def loss(self, output: Any, wanted: Any) -> Any:
        """Loss of a batch, a scalar tensor."""
        if self._kind is Answer.VALUES and self._objective.task in WITHOUT_LABELS:
            return tf.reduce_sum(output * wanted) / tf.cast(tf.shape(output)[0], tf.float32)
        return loss_of(_LABELS_ALONE, self._kind, output, wanted, None)

    def _split(self, size: int, batches: int) -> Iterator[NDArray[np.int64]]:
        size = min(size, len(self._chosen))
        for index in range(min(batches, len(self._chosen) // size)):
            yield np.sort(self._chosen[index * size : (index + 1) * size])

    def _wanted(
        self, x: NDArray[np.float32], chosen: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.generic]:
        values = self._kind is Answer.VALUES
        if self._objective.task not in WITHOUT_LABELS:
            labels = self._data.labels(SplitName.TRAIN)[chosen]
            return labels.astype(np.float32 if values else np.int32)
        if values:
            return rng.choice(np.array([-1.0, 1.0], np.float32), (len(x), *self._outputs))
        teacher = self._objective.teacher
        assert teacher is not None, "Objective requires a teacher where there are no labels"
        return _draw(teacher.logits(x), rng)


def _draw(logits: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int32]:
    """A class for every row of logits, with its probability (the Gumbel-max rule)."""
    drawn: NDArray[np.int32] = (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1).astype(np.int32)
    return drawn
