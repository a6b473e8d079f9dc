"""Stage: read the data source into a dataset artifact with four disjoint splits."""

from __future__ import annotations

from edgemill.data.call import load_call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from tasks.run import perform


def load_data(recipe: Recipe) -> StepRecord:
    """Load, check and split the recipe's data."""
    return perform(load_call(recipe), recipe.data.source)
