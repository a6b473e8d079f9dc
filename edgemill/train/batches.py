"""Batches of an epoch: shuffled, augmented and answered by the teacher one step ahead of training."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import RecipeError
from edgemill.recipe import Augment, Training
from edgemill.train.teacher import Teacher

_AHEAD = 3
_CHUNK = 256
_KEEP_ANSWERS_BYTES = 1 << 30
_IMAGE_RANKS = (2, 3)
_COLOURS = (1, 3, 4)


@dataclass(frozen=True)
class Batch:
    """One training step's material: inputs, labels if any, and the teacher's answers if any."""

    x: NDArray[np.float32]
    y: NDArray[np.generic] | None
    soft: NDArray[np.float32] | None
    maps: tuple[NDArray[np.float32], ...]


def image_axes(sample_shape: tuple[int, ...]) -> tuple[int, int]:
    """Axes of height and width in a sample: (H, W), (H, W, C), or (C, H, W).

    Raises:
        RecipeError: samples of this shape are not images.
    """
    if len(sample_shape) not in _IMAGE_RANKS:
        raise RecipeError(
            "Only images can be augmented.",
            where="augment",
            expected="samples of shape (H, W), (H, W, C) or (C, H, W)",
            got=str(sample_shape),
            remedy="remove flip and shift",
        )
    return (1, 2) if channels_first(sample_shape) else (0, 1)


def channels_first(sample_shape: tuple[int, ...]) -> bool:
    """Whether an image is (C, H, W): only its first axis looks like colours."""
    return len(sample_shape) == max(_IMAGE_RANKS) and sample_shape[0] in _COLOURS and sample_shape[-1] not in _COLOURS


def augment(images: NDArray[np.generic], rule: Augment, rng: np.random.Generator) -> NDArray[np.generic]:
    """Mirror and move every image by its own random amount.

    Args:
        images: stored samples, (N, *sample_shape), not yet preprocessed, so that the zeros that
            come in at the edges are the same value as in the source.
        rule: what is allowed.
        rng: source of the choices.
    """
    height, width = image_axes(images.shape[1:])
    out = np.array(images)
    flips = rng.random(len(out)) < 0.5
    if rule.flip:
        out[flips] = np.flip(out[flips], axis=width + 1)
    if rule.shift:
        moves = rng.integers(-rule.shift, rule.shift + 1, size=(len(out), 2))
        padding = [(0, 0)] * out.ndim
        padding[height + 1] = padding[width + 1] = (rule.shift, rule.shift)
        padded = np.pad(out, padding)
        rows, columns = images.shape[height + 1], images.shape[width + 1]
        for i, (dy, dx) in enumerate(moves + rule.shift):
            window: list[slice] = [slice(None)] * (out.ndim - 1)
            window[height] = slice(int(dy), int(dy) + rows)
            window[width] = slice(int(dx), int(dx) + columns)
            out[i] = padded[i][tuple(window)]
    return out


class Batches:
    """The training split as batches.

    The order and the augmentation of an epoch depend on (seed, epoch) only, so that a run which
    goes on after a kill sees what the undisturbed run would have seen.

    Args:
        data: the dataset.
        labels: labels of the training split, or None.
        settings: batch size (an incomplete last batch is left out unless it is the only one) and augmentation.
        teacher: answers the same augmented inputs, or None.
        seed: seed of order and augmentation.
        logits: whether the teacher gives logits (classification) or its own output.
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
    ) -> None:
        self._data = data
        self._raw = data.raw(SplitName.TRAIN)
        self._labels = labels
        self._size = min(settings.batch_size, len(self._raw))
        self._rule = settings.augment
        self._augments = self._rule.flip or self._rule.shift > 0
        self._teacher = teacher
        self._logits = logits
        self._seed = seed
        self._known: NDArray[np.float32] | None = None
        if self._augments:
            image_axes(data.sample_shape)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._raw) // self._size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch, counted from 0."""
        rng = np.random.default_rng([self._seed, epoch])
        order = rng.permutation(len(self._raw))
        self._answer_all()
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for step in range(self.steps):
                # One worker, so the draws from rng come in the order of the steps.
                waiting.append(pool.submit(self._make, order[step * self._size : (step + 1) * self._size], rng))
                if len(waiting) >= _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _make(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        stored = self._raw[chosen]
        x = self._data.prepare(augment(stored, self._rule, rng) if self._augments else stored)
        y = None if self._labels is None else self._labels[chosen]
        if self._known is not None:
            return Batch(x, y, self._known[chosen], ())
        if self._teacher is None:
            return Batch(x, y, None, ())
        soft, *maps = self._teacher.answers(x, self._logits)
        return Batch(x, y, soft, tuple(maps))

    def _answer_all(self) -> None:
        """Ask the teacher once for all samples where its answers never change and are small."""
        if self._teacher is None or self._augments or self._teacher.features or self._known is not None:
            return
        ask = self._teacher.logits if self._logits else self._teacher.outputs
        first = ask(self._data.features(SplitName.TRAIN, 0, 1))
        if first.nbytes * len(self._raw) > _KEEP_ANSWERS_BYTES:
            return
        known = np.empty((len(self._raw), *first.shape[1:]), np.float32)
        for start in range(0, len(known), _CHUNK):
            known[start : start + _CHUNK] = ask(self._data.features(SplitName.TRAIN, start, start + _CHUNK))
        self._known = known
