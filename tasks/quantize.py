"""Task: bring a model into the number format of a scheme, by the step that the target's backend chose."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.execute import Call
from edgemill.store import StepRecord
from tasks.run import finished, run_step


@task(name="quantize", task_run_name="{call.step.name} {subject}", cache_policy=NO_CACHE)
def quantize(call: Call, subject: str) -> State[StepRecord]:
    """Run the quantize step of a route."""
    return finished(run_step(call, subject))
