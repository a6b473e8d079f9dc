"""Step `distill.answers`: the teacher's answers to the views of the training samples, for all that learn from it."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import AnswersSettings
from edgemill.errors import RecipeError
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.train.answers import Views, answers_with_values, write
from edgemill.train.teacher import Teacher


def run(settings: AnswersSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Ask the teacher.

    Args:
        settings: the task, and how training samples are changed.
        inputs: `teacher` (onnx) and `data` (dataset).
        context: where to write; the seed draws the views.

    Returns:
        file `answers` (a folder, see `edgemill.train.answers.Answers`), an optional input of the
        steps that train with the same `augment`; facts `views`, `samples`, `logits`.

    Raises:
        RecipeError: there are no fixed views, or the answers are too large to keep.
    """
    if settings.augment.changes and settings.augment.views is None:
        raise RecipeError(
            "Samples that change in a new way in every epoch cannot be answered beforehand.",
            where="augment.views",
            expected="a number of views",
            got="none",
            remedy="give augment.views, e.g. 8",
        )
    data = Dataset(inputs["data"].path)
    teacher = Teacher(inputs["teacher"].path)
    samples = data.sizes[SplitName.TRAIN]
    shape = teacher.outputs(data.features(SplitName.TRAIN, 0, 1)).shape[1:]
    logits = not answers_with_values(settings.task, shape, data.sample_shape)
    views = Views(data, settings.augment, context.seed)
    folder = context.out / "answers"
    folder.mkdir()
    write(folder, views, teacher, logits, samples, lambda done: context.report(done, "asking the teacher"))
    facts = {"views": views.count, "samples": samples, "logits": logits}
    return Outputs({"answers": OutputFile(folder, "answers")}, facts)
