"""The teacher's answers to fixed views of the training samples, asked once and kept.

Asking a teacher costs more than training a small student. With fixed views the student still learns
from answers to the very images it sees (function matching, Beyer et al. 2022, section 3).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import InvariantError, RecipeError
from edgemill.recipe import Augment, Task
from edgemill.step import InputFile
from edgemill.train.augment import Draws, augment, draw, image_axes
from edgemill.train.teacher import Teacher

ARRAY = "answers.npy"
MANIFEST = "answers.json"
_CHUNK = 256
_MOST_BYTES = 4 << 30
# Beside the seed, so that views and the order of an epoch are drawn from different streams.
_STREAM = 1

Report = Callable[[float], None]


def answers_with_values(task: Task, output_shape: tuple[int, ...], sample_shape: tuple[int, ...]) -> bool:
    """Whether an answer means real values, not class scores.

    So it is for regression, for an anomaly detector (its score, or a reconstruction), and for an
    unlabelled model whose output has the shape of its input (an autoencoder) or more than one axis.

    Args:
        task: what the model is for.
        output_shape: of one answer.
        sample_shape: of one sample.
    """
    return task in (Task.REGRESSION, Task.ANOMALY) or (
        task is Task.UNLABELLED and (len(output_shape) != 1 or output_shape == sample_shape)
    )


class Views:
    """The training samples, each in a fixed number of ways.

    How a sample looks in a view depends on (seed, view, sample) only.

    Args:
        data: the dataset.
        rule: what changes a sample, and in how many ways; without any change there is one view.
        seed: of the choices.

    Raises:
        RecipeError: samples that are not images cannot be changed.
    """

    def __init__(self, data: Dataset, rule: Augment, seed: int) -> None:
        self._data = data
        self._raw = data.raw(SplitName.TRAIN)
        self.rule = rule
        self.seed = seed
        self.count = (rule.views or 1) if rule.changes else 1
        self._drawn: tuple[int, Draws] | None = None
        if rule.changes:
            image_axes(data.sample_shape)

    def features(self, view: int, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Model inputs, float32 (len(chosen), *sample_shape), of samples as they look in a view."""
        stored = self._raw[chosen]
        if not self.rule.changes:
            return self._data.prepare(stored)
        drawn = self._drawn
        if drawn is None or drawn[0] != view:
            rng = np.random.default_rng([self.seed, view, _STREAM])
            drawn = self._drawn = (view, draw(len(self._raw), self.rule, rng))
        return self._data.prepare(augment(stored, self.rule, drawn[1].of(chosen)))

    def answers(self, view: int, teacher: Teacher, logits: bool, told: Report | None = None) -> NDArray[np.float32]:
        """The teacher's answers to all samples of a view, float32 (N, ...).

        Args:
            view: which one.
            teacher: is asked in chunks of one size, so that equal views give equal bits.
            logits: ask for class scores before a final activation, not for the output.
            told: is told the share that is done.
        """
        ask = teacher.logits if logits else teacher.outputs
        total = len(self._raw)
        parts = []
        for start in range(0, total, _CHUNK):
            parts.append(ask(self.features(view, np.arange(start, min(start + _CHUNK, total)))))
            if told is not None:
                told(min(1.0, (start + _CHUNK) / total))
        return np.concatenate(parts)


@dataclass(frozen=True)
class Answers:
    """What a teacher answered to all views.

    Attributes:
        rule: how the views were made.
        seed: from which they were drawn.
        logits: whether the answers are class scores before a final activation.
        values: float32 (views, N, ...), memory-mapped.
    """

    rule: Augment
    seed: int
    logits: bool
    values: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path) -> Answers:
        """Read a folder that `write` has made."""
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        values: NDArray[np.float32] = np.load(folder / ARRAY, mmap_mode="r", allow_pickle=False)
        return cls(Augment.model_validate(manifest["augment"]), manifest["seed"], manifest["logits"], values)

    @classmethod
    def given(cls, inputs: Mapping[str, InputFile]) -> Answers | None:
        """The answers among the inputs of a step, None where there are none."""
        return cls.read(inputs["answers"].path) if "answers" in inputs else None

    def check(self, rule: Augment, samples: int, logits: bool) -> None:
        """Make sure that these answers are to what will be trained on.

        Raises:
            InvariantError: they are not.
        """
        wanted = (rule, samples, logits)
        found = (self.rule, self.values.shape[1], self.logits)
        if wanted != found:
            raise InvariantError("The teacher's answers are to other samples.", expected=str(wanted), got=str(found))


def write(folder: Path, views: Views, teacher: Teacher, logits: bool, samples: int, report: Report) -> Answers:
    """Ask the teacher for every view and keep the answers.

    Args:
        folder: existing, empty.
        views: what is asked.
        teacher: who is asked.
        logits: see `Views.answers`.
        samples: training samples.
        report: is told the share that is done.

    Raises:
        RecipeError: the answers would take more than 4 GiB.
    """
    ask = teacher.logits if logits else teacher.outputs
    first = ask(views.features(0, np.arange(1)))
    shape = (views.count, samples, *first.shape[1:])
    size = int(np.prod(shape)) * first.itemsize
    if size > _MOST_BYTES:
        raise RecipeError(
            "The teacher's answers to all views are too large to keep.",
            where="augment.views",
            expected=f"at most {_MOST_BYTES} bytes",
            got=f"{size} bytes: {' x '.join(map(str, shape))} values",
            remedy="fewer views, or leave views out",
        )
    kept = np.lib.format.open_memmap(folder / ARRAY, "w+", np.float32, shape)
    for view in range(views.count):

        def told(share: float, view: int = view) -> None:
            report((view + share) / views.count)

        kept[view] = views.answers(view, teacher, logits, told)
    kept.flush()
    manifest = {"augment": views.rule.model_dump(mode="json"), "seed": views.seed, "logits": logits}
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, indent=1), encoding="utf-8")
    return Answers.read(folder)
