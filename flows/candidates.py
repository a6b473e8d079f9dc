"""Build every candidate for every target: all transforming steps, what is shared computed once.

Candidates are the checkpoint itself and the model after each compressing stage, or only the last of them, in every
scheme of the recipe, and in fp32 where a stage has changed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from edgemill.candidate import FP32, Model
from edgemill.errors import EdgemillError
from edgemill.recipe import Scheme
from edgemill.results import Attempt
from edgemill.targets import load_target
from flows.chain import Site, in_order, planned, run_stage
from flows.variant import build
from tasks.run import unvisited


@dataclass
class Built:
    """All models of the chain, and all attempts, finished or failed."""

    models: list[Model]
    attempts: list[Attempt] = field(default_factory=list)


def build_candidates(site: Site) -> Built:
    """Run the compressing stages, and beside them quantize, compile and screen every candidate.

    A failing step ends its own candidates only; they carry the reason.
    """
    built = Built([site.checkpoint])
    running: list[PrefectFuture[Attempt]] = []
    every = site.recipe.stages.candidates == "all"
    for stage in in_order(site.recipe.stages):
        running += _submit_variants(site, built.models[-1]) if every else []
        after = planned(built.models[-1], stage)
        try:
            built.models.append(after.model_copy(update={"files": run_stage(site, stage, built.models[-1]).outputs}))
        except EdgemillError as error:
            targets = map(load_target, site.recipe.targets)
            built.attempts += [Attempt(after, None, target, failure=error) for target in targets]
            running += [] if every else _submit_variants(site, built.models[-1])
            break
    else:
        running += _submit_variants(site, built.models[-1])
    built.attempts = [*(future.result() for future in running), *built.attempts]
    return built


def _submit_variants(site: Site, model: Model) -> list[PrefectFuture[Attempt]]:
    schemes: list[Scheme | None] = list(site.recipe.stages.quantize.schemes)
    if model is not site.checkpoint:
        schemes.insert(0, None)
    targets = [load_target(name) for name in site.recipe.targets]
    attempts = [
        Attempt(model, scheme, target) for scheme in schemes for target in targets if (scheme or FP32) in target.formats
    ]
    return [_build.submit(unvisited(site), unvisited(attempt), attempt.subject) for attempt in attempts]


@task(name="candidate", task_run_name="{subject}", cache_policy=NO_CACHE)
def _build(site: Site, attempt: Attempt, subject: str) -> Attempt:
    """See `flows.variant.build`; beside the others."""
    build(site, attempt)
    return attempt
