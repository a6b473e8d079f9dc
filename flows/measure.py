"""Measure one candidate against the checkpoint, and say why it is not faster where it is not."""

from __future__ import annotations

from contextlib import suppress

from edgemill.artifact import Artifact
from edgemill.candidate import Model
from edgemill.errors import EdgemillError, ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Recipe
from edgemill.results import Attempt
from tasks.benchmark import benchmark, explain, figures
from tasks.validate import in_oldest_runtime


def measure(attempt: Attempt, checkpoint: Model, recipe: Recipe, data: Artifact, *, in_any_case: bool = False) -> None:
    """Fill in what was measured; a failure is noted in it.

    Args:
        in_any_case: also where the candidate does not stand up on validation data.
    """
    if attempt.file is None or not (attempt.worth_measuring or in_any_case):
        return
    onnx = checkpoint.files["onnx"]
    try:
        attempt.versions = in_oldest_runtime(
            attempt.file, attempt.target, attempt.scheme, recipe, data, attempt.subject
        )
        if attempt.measured is not None:
            pass  # a board has done it
        elif attempt.target.timed:
            attempt.measured = benchmark(attempt.file, onnx, attempt.target, recipe, data, attempt.subject)
        elif attempt.compiled is not None:
            device = DeviceFigures.model_validate(attempt.compiled.facts["device"])
            attempt.measured = figures(attempt.file, onnx, device, attempt.subject)
    except EdgemillError as error:
        attempt.failure = error
        return
    if attempt.worth_explaining:
        # an odd profile leaves the variant without an explanation, nothing worse
        with suppress(ToolchainError):
            attempt.explained = explain(attempt.file, onnx, recipe, data, attempt.subject)
