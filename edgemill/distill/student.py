"""Step `distill.student`: build a smaller model and train it on the teacher's answers."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemill.data.dataset import Dataset, SplitName
from edgemill.distill import DistillSettings
from edgemill.distill.families import build
from edgemill.distill.narrow import narrow
from edgemill.errors import CheckpointError, EdgemillError, RecipeError
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.recipe import DistillMethod, Student
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras
from edgemill.train import WITHOUT_LABELS
from edgemill.train.answers import Answers
from edgemill.train.features import FeatureLoss, match
from edgemill.train.loop import Objective, train
from edgemill.train.objective import Answer, answer_kind
from edgemill.train.score import teacher_score
from edgemill.train.teacher import Teacher


def run(settings: DistillSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Train a student.

    Args:
        settings: the recipe's, and the task.
        inputs: `teacher` (onnx), `data` (dataset), and `keras` (the teacher as tf_keras model), which
            is needed to narrow the teacher's own graph only; `answers` (optional, of `distill.answers`).
        context: where to write.

    Returns:
        files `keras` and `onnx`; facts `parameters`, `teacher_score`, `score`, `history`, `features`.
    """
    fresh(context.seed)
    data = Dataset(inputs["data"].path)
    teacher = Teacher(inputs["teacher"].path)
    student = make_student(settings.student, inputs, data, teacher)
    values = answer_kind(student, settings.task, data) is Answer.VALUES
    features = _features(settings, student, teacher, data)
    if features is not None:
        teacher = Teacher(inputs["teacher"].path, features.tensors)
    objective = Objective(
        settings.task,
        teacher,
        settings.temperature,
        1.0 if settings.task in WITHOUT_LABELS else settings.soft_weight,
        features,
        Answers.given(inputs),
    )
    history = train(student, data, settings, objective, context)
    context.report(1.0, "exporting the student")
    save_keras(student, context.out / "model.keras")
    signature = keras_to_onnx(student, context.out / "model.onnx")
    facts: dict[str, Any] = {
        "parameters": int(student.count_params()),
        "score": history.best_score,
        "teacher_score": teacher_score(teacher, data, settings.task, values),
        "history": history.record(),
        "features": None if features is None else features.record(),
    }
    files = {
        "keras": OutputFile(context.out / "model.keras", "keras"),
        "onnx": OutputFile(context.out / "model.onnx", "onnx", signature),
    }
    return Outputs(files, facts)


def make_student(student: Student, inputs: Mapping[str, InputFile], data: Dataset, teacher: Teacher) -> Any:
    """Build the student that the recipe describes.

    Raises:
        RecipeError: the family or function does not fit.
        CheckpointError: the teacher's graph cannot be narrowed.
    """
    outputs = teacher.outputs(data.features(SplitName.TRAIN, 0, 1)).shape[1:]
    if student.function is not None:
        return _call(student.function, data.sample_shape, outputs)
    if student.family is not None:
        return build(student.family, data.sample_shape, outputs, student.width or 1.0, teacher.final)
    if "keras" not in inputs:
        raise CheckpointError(
            "The checkpoint cannot be narrowed: it has no trainable form.",
            where="stages.distill.student.width",
            remedy="give a Keras checkpoint, or name a family or function for the student",
        )
    assert student.width is not None, "the recipe allows no student without width, family and function"
    return narrow(keras.models.load_model(inputs["keras"].path, compile=False), student.width)


def _call(function: str, input_shape: tuple[int, ...], outputs: tuple[int, ...]) -> Any:
    _, module, name = function.split(":")
    where = "stages.distill.student.function"
    try:
        model = getattr(importlib.import_module(module), name)(
            input_shape, outputs[0] if len(outputs) == 1 else outputs
        )
    except EdgemillError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise RecipeError(
            "The student function failed.",
            where=where,
            got=f"{function}: {type(error).__name__}: {error}",
            remedy="it is called as function(input_shape, outputs) and returns a tf_keras model",
        ) from error
    if not isinstance(model, keras.Model):
        raise RecipeError(
            "The student function did not return a tf_keras model.", where=where, got=type(model).__name__
        )
    try:
        taken, given = tuple(model.input_shape[1:]), tuple(model.output_shape[1:])
    except AttributeError as error:
        raise RecipeError("The student has no known shapes.", where=where, expected="a built model") from error
    if taken != input_shape or given != outputs:
        raise RecipeError(
            "The student does not fit the teacher.",
            where=where,
            expected=f"{input_shape} -> {outputs}",
            got=f"{taken} -> {given}",
        )
    _check_readable(model, where)
    return model


def _check_readable(model: Any, where: str) -> None:
    """Refuse, before training, a model that the next stages could not read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        try:
            model.save(path)
            keras.models.load_model(path, compile=False)
        except Exception as error:
            raise RecipeError(
                "The student cannot be saved and read back.",
                where=where,
                expected="standard Keras layers only",
                got=f"{type(error).__name__}: {error}".splitlines()[0],
            ) from error


def _features(settings: DistillSettings, student: Any, teacher: Teacher, data: Dataset) -> FeatureLoss | None:
    if settings.method is DistillMethod.RESPONSE:
        return None
    maps = teacher.feature_maps(data.features(SplitName.TRAIN, 0, 1))
    return FeatureLoss(settings.method, settings.feature_weight, match(settings.method, student, maps))
