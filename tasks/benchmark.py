"""Task: measure a compiled file against the fp32 checkpoint, alone on the machine."""

from __future__ import annotations

from edgemill.benchmark.host import fingerprint_digest
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from edgemill.artifact import Artifact
from edgemill.benchmark import BENCHMARK, BenchmarkSettings
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.run import finished, run_step


@task(name="benchmark.latency", task_run_name="benchmark {subject}", cache_policy=NO_CACHE)
def benchmark(
    variant: Artifact, baseline: Artifact, target: Target, recipe: Recipe, data: Artifact, subject: str
) -> State[StepRecord]:
    """Interleaved runs of variant and baseline."""
    call = Call(
        BENCHMARK,
        BenchmarkSettings(benchmark=recipe.benchmark, target=target),
        {"variant": variant, "baseline": baseline, "data": data},
        seed=recipe.seed,
        extra={"host": fingerprint_digest()},
    )
    return finished(run_step(call, subject))
