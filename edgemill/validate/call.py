"""The calls that predict a split and compare the answers with the checkpoint's."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.emulate.machine import Machine, on_this_host
from edgemill.execute import Call
from edgemill.functions import of_gates
from edgemill.recipe import Recipe
from edgemill.validate import GATE, PREDICT, SCREEN, GateSettings, PredictSettings


def predict_call(
    model: Artifact, recipe: Recipe, data: Artifact, split: SplitName, machine: Machine | None = None
) -> Call:
    """Answer every sample of a split with a model file, through the runtime of its kind.

    Args:
        machine: in whose arithmetic; None: this host's.
    """
    settings = PredictSettings(split=split, task=recipe.task, machine=machine or on_this_host())
    toolchain = None if machine is None else machine.toolchain
    return Call(PREDICT, settings, {"model": model, "data": data}, toolchain=toolchain)


def compare_call(variant: Artifact, baseline: Artifact, recipe: Recipe, data: Artifact, split: SplitName) -> Call:
    """Compare predictions pair by pair: a screen on validation data, the gate on test data.

    Raises:
        RecipeError: the module of one of the recipe's own functions is missing.
    """
    identities, folders = of_gates(recipe)
    return Call(
        GATE if split is SplitName.TEST else SCREEN,
        GateSettings(task=recipe.task, budget=recipe.budget, gates=recipe.gates, split=split),
        {"variant": variant, "baseline": baseline, "data": data},
        seed=recipe.seed,
        extra=identities,
        search_path=folders,
    )
