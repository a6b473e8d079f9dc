"""Task: read the data source into a dataset artifact with four disjoint splits."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.data import LOAD, LoadSettings, source_digest
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from tasks.run import finished, run_step


@task(name="data.load", task_run_name="data.load {recipe.data.source}", cache_policy=NO_CACHE)
def load_data(recipe: Recipe) -> State[StepRecord]:
    """Load, check and split the recipe's data."""
    call = Call(
        LOAD,
        LoadSettings(data=recipe.data, task=recipe.task),
        inputs={},
        extra={"source": source_digest(recipe.data)},
        search_path=(recipe.data.path,) if recipe.data.path else (),
    )
    return finished(run_step(call, recipe.data.source))
