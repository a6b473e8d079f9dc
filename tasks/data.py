"""Stage: read the data source into a dataset artifact with four disjoint splits."""

from __future__ import annotations

from pathlib import Path

from edgemill.data import LOAD, LoadSettings, source_digest
from edgemill.execute import Call
from edgemill.functions import search_path
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from tasks.run import perform


def load_data(recipe: Recipe) -> StepRecord:
    """Load, check and split the recipe's data."""
    call = Call(
        LOAD,
        LoadSettings(data=recipe.data, task=recipe.task),
        inputs={},
        extra={"source": source_digest(recipe.data)},
        search_path=search_path(recipe.data.source, Path(recipe.data.path or ".")),
    )
    return perform(call, recipe.data.source)
