"""Build every candidate for every target: all transforming steps, what is shared computed once.

Candidates are the checkpoint itself and the model after each compressing stage, in every scheme of
the recipe, and in fp32 where a stage has changed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture

from edgemill.artifact import Artifact
from edgemill.candidate import CHECKPOINT, Link, Model
from edgemill.compile.backend import Refusal, backend_of
from edgemill.data import SplitName
from edgemill.errors import CheckpointError, EdgemillError, ToolchainError
from edgemill.recipe import Distill, Prune, Recipe, Scheme
from edgemill.results import Attempt
from edgemill.store import StepRecord
from edgemill.targets import load_target
from flows.variant import Site, make_for_target
from tasks.distill import distill
from tasks.prune import prune
from tasks.run import unvisited
from tasks.validate import predict


@dataclass
class Built:
    """All models of the chain, and all attempts, finished or failed."""

    models: list[Model]
    attempts: list[Attempt] = field(default_factory=list)


def build_candidates(recipe: Recipe, checkpoint: Model, ingested: StepRecord, data: Artifact) -> Built:
    """Run the compressing stages, and beside them quantize, compile and screen every candidate.

    A failing step ends its own candidates only; they carry the reason.
    """
    on_validation = predict(checkpoint.files["onnx"], recipe, data, SplitName.VALIDATION, CHECKPOINT)
    site = Site(recipe, checkpoint, ingested, data, on_validation)
    built = Built([checkpoint])
    running: list[PrefectFuture[Attempt]] = []
    for stage in _stages(recipe):
        running += _submit_variants(site, built.models[-1])
        after = _extend(site, built.models[-1], stage)
        try:
            built.models.append(after.model_copy(update={"files": _train(site, stage, built.models[-1]).outputs}))
        except EdgemillError as error:
            targets = map(load_target, recipe.targets)
            built.attempts += [Attempt(after, None, target, failure=error) for target in targets]
            break
    else:
        running += _submit_variants(site, built.models[-1])
    built.attempts = [*(future.result() for future in running), *built.attempts]
    return built


def _stages(recipe: Recipe) -> Iterator[Distill | Prune]:
    if recipe.stages.distill is not None:
        yield recipe.stages.distill
    if recipe.stages.prune is not None:
        yield recipe.stages.prune


def _extend(site: Site, before: Model, stage: Distill | Prune) -> Model:
    link = _link(stage)
    name = link.stage if before is site.checkpoint else f"{before.name}-{link.stage}"
    return Model(name=name, chain=(*before.chain, link), files={})


def _link(stage: Distill | Prune) -> Link:
    if isinstance(stage, Distill):
        student = stage.student
        parts = [student.function or student.family or "", f"width {student.width:g}" if student.width else ""]
        title = ", ".join(["distill", *filter(None, parts)])
        return Link(stage="distill", step="distill.student", title=title)
    share = "2:4" if stage.method == "n_m" else f"{stage.sparsity:.0%} zeros"
    return Link(stage="prune", step="prune.sparsity", title=f"prune, {share}")


def _train(site: Site, stage: Distill | Prune, before: Model) -> StepRecord:
    if isinstance(stage, Distill):
        return distill(site.recipe, stage, before, site.data)
    if "keras" in before.files:
        return prune(site.recipe, stage, before, site.checkpoint, site.data)
    facts = site.ingested.facts
    raise CheckpointError(
        "The checkpoint cannot be trained, so it cannot be pruned.",
        where="stages.prune",
        expected="a Keras model, or a distill stage with a student family before",
        got="; ".join([facts["format"], *(f"{item['layer']}: {item['reason']}" for item in facts["unbridged"])]),
        remedy="add stages.distill with a student family, or give the Keras checkpoint",
    )


def _submit_variants(site: Site, model: Model) -> list[PrefectFuture[Attempt]]:
    schemes: list[Scheme | None] = list(site.recipe.stages.quantize.schemes)
    if model is not site.checkpoint:
        schemes.insert(0, None)
    targets = [load_target(name) for name in site.recipe.targets]
    attempts = [
        Attempt(model, scheme, target)
        for scheme in schemes
        for target in targets
        if scheme is None or scheme in target.formats
    ]
    return [_build.submit(unvisited(site), unvisited(attempt), attempt.subject) for attempt in attempts]


@task(name="candidate", task_run_name="{subject}", cache_policy=NO_CACHE)
def _build(site: Site, attempt: Attempt, subject: str) -> Attempt:
    """Quantize, compile, predict validation data and screen one candidate; a failure is part of the answer."""
    route = backend_of(attempt.target).route(
        attempt.scheme, frozenset(attempt.model.files), attempt.target, site.recipe
    )
    try:
        if isinstance(route, Refusal):
            raise ToolchainError(route.reason, where=subject, remedy=route.remedy)
        make_for_target(site, attempt, route)
    except EdgemillError as error:
        attempt.failure = error
    return attempt
