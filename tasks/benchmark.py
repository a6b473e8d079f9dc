"""Stage: measure a compiled file against the fp32 checkpoint, alone on the machine."""

from __future__ import annotations

from edgemill.artifact import Artifact
from edgemill.benchmark import BENCHMARK, BenchmarkSettings
from edgemill.benchmark.host import fingerprint_digest
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.run import perform


def benchmark(
    variant: Artifact, baseline: Artifact, target: Target, recipe: Recipe, data: Artifact, subject: str
) -> StepRecord:
    """Interleaved runs of variant and baseline."""
    call = Call(
        BENCHMARK,
        BenchmarkSettings(benchmark=recipe.benchmark, target=target),
        {"variant": variant, "baseline": baseline, "data": data},
        seed=recipe.seed,
        extra={"host": fingerprint_digest()},
    )
    return perform(call, subject)
