"""Build every candidate for every target: all transforming steps, what is shared computed once.

Candidates are the checkpoint itself and the model after each compressing stage, in every scheme of
the recipe, and in fp32 where a stage has changed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prefect.futures import PrefectFuture

from edgemill.artifact import Artifact
from edgemill.candidate import CHECKPOINT, Link, Model
from edgemill.compile.backend import Refusal, backend_of
from edgemill.data import SplitName
from edgemill.errors import CheckpointError, EdgemillError, InvariantError, ToolchainError
from edgemill.execute import Call
from edgemill.recipe import Distill, Prune, Recipe, Scheme
from edgemill.results import Attempt
from edgemill.store import StepRecord
from edgemill.targets import Target, load_target
from tasks.compile import compile_model
from tasks.distill import distill
from tasks.prune import prune
from tasks.quantize import quantize
from tasks.validate import gate, predict

Future = PrefectFuture[StepRecord]


@dataclass
class Built:
    """All models of the chain, and all attempts, finished or failed."""

    models: list[Model]
    attempts: list[Attempt]


@dataclass
class _Pending:
    """An attempt with the futures of its steps, in order."""

    attempt: Attempt
    quantized: Future | None
    compiled: Future
    predicted: Future
    screened: Future


@dataclass
class _Site:
    """What all candidates of a run share while they are built."""

    recipe: Recipe
    checkpoint: Model
    data: Artifact
    on_validation: Future
    pending: list[_Pending] = field(default_factory=list)
    refused: list[Attempt] = field(default_factory=list)
    quantizing: dict[str, Future] = field(default_factory=dict)

    @property
    def targets(self) -> list[Target]:
        return [load_target(name) for name in self.recipe.targets]


def build_candidates(recipe: Recipe, checkpoint: Model, ingested: StepRecord, data: Artifact) -> Built:
    """Run the compressing stages, then quantize, compile and screen every candidate.

    A failing step ends its own candidates only; they carry the reason.
    """
    on_validation = predict.submit(checkpoint.files["onnx"], recipe, data, SplitName.VALIDATION, CHECKPOINT)
    site = _Site(recipe, checkpoint, data, on_validation)
    models = [checkpoint]
    for stage in (recipe.stages.distill, recipe.stages.prune):
        if stage is None:
            continue
        before = models[-1]
        training = _train(site, stage, before, ingested)
        # the longest step is under way: now the variants of what it starts from
        _submit_variants(site, before)
        after = _after(before, stage, training)
        if isinstance(after, Model):
            models.append(after)
        else:
            site.refused += after.attempts(site.targets)
            break
    else:
        _submit_variants(site, models[-1])
    return Built(models, [*map(_settle, site.pending), *site.refused])


@dataclass(frozen=True)
class _Broken:
    """A compressing stage that came to nothing."""

    model: Model
    error: EdgemillError

    def attempts(self, targets: list[Target]) -> list[Attempt]:
        return [Attempt(self.model, None, target, failure=self.error) for target in targets]


def _train(site: _Site, stage: Distill | Prune, before: Model, ingested: StepRecord) -> Future | EdgemillError:
    if isinstance(stage, Distill):
        return distill.submit(site.recipe, stage, before, site.data)
    if "keras" in before.files:
        return prune.submit(site.recipe, stage, before, site.checkpoint, site.data)
    unbridged = ingested.facts.get("unbridged") or []
    return CheckpointError(
        "The checkpoint cannot be trained, so it cannot be pruned.",
        where="stages.prune",
        expected="a Keras model, or an ONNX or TFLite file with a distill stage before",
        got=f"{ingested.facts['format']}" + "".join(f"; {item['layer']}: {item['reason']}" for item in unbridged),
        remedy="add stages.distill with a student family, or give the Keras checkpoint",
    )


def _after(before: Model, stage: Distill | Prune, training: Future | EdgemillError) -> Model | _Broken:
    link = _link(stage)
    name = link.stage if before.name == CHECKPOINT else f"{before.name}-{link.stage}"
    chain = (*before.chain, link)
    outcome = training if isinstance(training, EdgemillError) else _outcome(training)
    if isinstance(outcome, EdgemillError):
        return _Broken(Model(name=name, chain=chain, files={}), outcome)
    return Model(name=name, chain=chain, files=outcome.outputs)


def _link(stage: Distill | Prune) -> Link:
    if isinstance(stage, Distill):
        student = stage.student
        parts = [student.function or student.family or "", f"width {student.width:g}" if student.width else ""]
        title = ", ".join(["distill", *filter(None, parts)])
        return Link(stage="distill", step="distill.student", title=title)
    share = "2:4" if stage.method == "n_m" else f"{stage.sparsity:.0%} zeros"
    return Link(stage="prune", step="prune.sparsity", title=f"prune, {share}")


def _submit_variants(site: _Site, model: Model) -> None:
    schemes: list[Scheme | None] = list(site.recipe.stages.quantize.schemes)
    if model is not site.checkpoint:
        schemes.insert(0, None)
    for scheme in schemes:
        for target in site.targets:
            if scheme is None or scheme in target.formats:
                _submit(site, Attempt(model, scheme, target))


def _submit(site: _Site, attempt: Attempt) -> None:
    model, target, scheme = attempt.model, attempt.target, attempt.scheme
    route = backend_of(target).route(scheme, frozenset(model.files), target, site.recipe)
    if isinstance(route, Refusal):
        attempt.failure = ToolchainError(route.reason, where=attempt.subject, remedy=route.remedy)
        site.refused.append(attempt)
        return
    quantized: Future | None = None
    if route.step is None:
        source: Future | Artifact = model.files[route.output]
    else:
        given = {"data": site.data, "teacher": site.checkpoint.files["onnx"], **model.files}
        call = Call(
            route.step,
            route.settings,
            {name: given[form] for name, form in route.inputs.items()},
            seed=site.recipe.seed,
        )
        if call.key not in site.quantizing:
            site.quantizing[call.key] = quantize.submit(call, attempt.name)
        source = quantized = site.quantizing[call.key]
    compiled = compile_model.submit(source, route.output, target, scheme, site.data, attempt.subject)
    predicted = predict.submit(compiled, site.recipe, site.data, SplitName.VALIDATION, attempt.subject)
    screened = gate.submit(predicted, site.on_validation, site.recipe, site.data, SplitName.VALIDATION, attempt.subject)
    site.pending.append(_Pending(attempt, quantized, compiled, predicted, screened))


def _settle(pending: _Pending) -> Attempt:
    attempt = pending.attempt
    for step in ("quantized", "compiled", "predicted", "screened"):
        future: Future | None = getattr(pending, step)
        if future is None:
            continue
        outcome = _outcome(future)
        if isinstance(outcome, EdgemillError):
            attempt.failure = outcome
            # what depends on it ends by itself; wait so that nothing outlives the run
            pending.screened.wait()
            break
        setattr(attempt, step, outcome)
    return attempt


def _outcome(future: Future) -> StepRecord | EdgemillError:
    future.wait()
    result = future.state.result(raise_on_failure=False)
    if isinstance(result, StepRecord | EdgemillError):
        return result
    return InvariantError("A task failed in an unforeseen way.", got=f"{type(result).__name__}: {result}")
