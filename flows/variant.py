"""Make one candidate for one target, in a form whose answers hold in the target's own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemill.artifact import Artifact
from edgemill.compile.backend import Refusal, Route, backend_of
from edgemill.data import SplitName
from edgemill.emulate.cure import Cure, cured, cures, evidence, treat
from edgemill.emulate.machine import how_executed, screened_on
from edgemill.errors import EdgemillError, ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Scheme
from edgemill.results import Attempt, answering
from edgemill.select import does_not_fit
from edgemill.store import StepRecord
from edgemill.targets.provenance import NATIVE
from edgemill.targets.spec import By
from edgemill.validate.divergence import Divergence
from edgemill.validate.verdict import Decision, GateFacts
from flows.chain import Site
from tasks.compile import compile_model
from tasks.quantize import quantize, unsigned_weights
from tasks.validate import compare, diverge, predict


@dataclass(frozen=True)
class _Made:
    quantized: StepRecord | None
    compiled: StepRecord

    @property
    def file(self) -> Artifact:
        return answering(self.compiled)


def build(site: Site, attempt: Attempt) -> None:
    """Quantize, compile, predict validation data and screen one candidate; a failure is noted in it."""
    try:
        route = backend_of(attempt.target).route(
            attempt.scheme, frozenset(attempt.model.files), attempt.target, site.recipe
        )
        if isinstance(route, Refusal):
            raise ToolchainError(route.reason, where=attempt.subject, remedy=route.remedy)
        _make_for_target(site, attempt, route)
    except EdgemillError as error:
        attempt.failure = error


def _make_for_target(site: Site, attempt: Attempt, route: Route) -> None:
    """Quantize, compile and screen; where answers part on the target's arithmetic, cure the model and say so.

    Raises:
        EdgemillError: a step failed; what was finished before is in the attempt.
    """
    target, recipe, data = attempt.target, site.recipe, site.data
    machine = how_executed(target)
    options = cures(target, route.settings, trained=attempt.scheme is Scheme.INT8_QAT)

    def make(cure: Cure) -> _Made:
        return _make(site, attempt, route, cure)

    def probe(made: _Made) -> Divergence:
        return diverge(made.file, data, machine, attempt.subject)

    def screen(made: _Made, found: Divergence | None) -> StepRecord:
        on = machine if found is None else screened_on(machine, found.close, found.samples)
        answers = predict(made.file, recipe, data, SplitName.VALIDATION, attempt.subject, on)
        return compare(answers, site.on_validation, recipe, data, SplitName.VALIDATION, attempt.subject)

    def suffices(made: _Made) -> bool:
        return GateFacts.model_validate(screen(made, probe(made)).facts).verdict.verdict is not Decision.FAIL

    if len(options) == 1 and (machine.source == NATIVE or not backend_of(target).probed):
        # this machine is of the target's kind, or its compile step has compared: there is nothing to compare with
        made, found = make(Cure.NONE), None
        attempt.arithmetic = evidence(machine)
    else:
        treatment = treat(options, machine, make, probe, suffices)
        made, found = treatment.made, treatment.divergence
        attempt.arithmetic = evidence(machine, treatment)
    attempt.quantized, attempt.compiled = made.quantized, made.compiled
    if (device := made.compiled.facts.get("device")) is not None:
        attempt.too_big = does_not_fit(DeviceFigures.model_validate(device), target.limits)
    if attempt.too_big is not None or target.execution.by is By.NOTHING:
        return
    attempt.screened = screen(made, found)


def _make(site: Site, attempt: Attempt, route: Route, cure: Cure) -> _Made:
    model, recipe = attempt.model, site.recipe
    if route.settings is not None:
        route = replace(route, settings=cured(route.settings, cure))
    given = {"data": site.data, "teacher": site.checkpoint.files["onnx"], **model.files}
    quantized = quantize(route, given, recipe, attempt.name)
    source = model.files[route.output] if quantized is None else quantized.outputs[route.output]
    if cure is Cure.UINT8_WEIGHTS:
        quantized = unsigned_weights(source, recipe, attempt.name)
        source = quantized.outputs["onnx"]
    return _Made(quantized, compile_model(source, attempt.target, attempt.scheme, site.data, attempt.subject))
