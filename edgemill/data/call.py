"""The call that loads a recipe's data."""

from __future__ import annotations

from pathlib import Path

from edgemill.data import LOAD, LoadSettings, source_digest
from edgemill.execute import Call
from edgemill.functions import search_path
from edgemill.recipe import Recipe


def load_call(recipe: Recipe) -> Call:
    """Load, check and split the recipe's data.

    Raises:
        DataError: the source is missing.
    """
    return Call(
        LOAD,
        LoadSettings(data=recipe.data, task=recipe.task),
        inputs={},
        extra={"source": source_digest(recipe.data)},
        search_path=search_path(recipe.data.source, Path(recipe.data.path or ".")),
    )
