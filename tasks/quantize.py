"""Stage: bring a model into a number format, by the step that the target's backend chose."""

from __future__ import annotations

from collections.abc import Mapping

from edgemill.artifact import Artifact
from edgemill.compile.backend import Route
from edgemill.execute import Call
from edgemill.functions import of_gates
from edgemill.quantize import MIXED, UNSIGNED_WEIGHTS, QatSettings, UnsignedSettings
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from tasks.answers import teacher_answers
from tasks.run import perform


def quantize(route: Route, given: Mapping[str, Artifact], recipe: Recipe, subject: str) -> StepRecord | None:
    """Run the quantize step of a route; None where the model is compiled as it is.

    Args:
        given: what the route may draw on: the forms of the model, `data` and `teacher`.
    """
    if route.step is None or route.settings is None:
        return None
    inputs = {name: given[form] for name, form in route.inputs.items()}
    if isinstance(route.settings, QatSettings) and "teacher" in inputs:
        inputs |= teacher_answers(recipe, route.settings.training.augment, inputs["teacher"], inputs["data"])
    # only int8_mixed judges while it quantizes, and so may call the recipe's own functions
    identities, folders = of_gates(recipe) if route.step is MIXED else ({}, ())
    call = Call(route.step, route.settings, inputs, seed=recipe.seed, extra=identities, search_path=folders)
    return perform(call, subject)


def unsigned_weights(model: Artifact, recipe: Recipe, subject: str) -> StepRecord:
    """The same numbers with uint8 weights, for CPUs whose uint8 x int8 products saturate."""
    return perform(Call(UNSIGNED_WEIGHTS, UnsignedSettings(), {"onnx": model}, seed=recipe.seed), subject)
