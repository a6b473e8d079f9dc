"""Where the trials of a search are run: chains built, screened and measured, each thing once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from edgemill.candidate import FP32, Model, candidate_name
from edgemill.data import SplitName
from edgemill.data.dataset import Dataset
from edgemill.errors import InvariantError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Channels, Cluster, Distill, Goal, Prune, Scheme, Stages
from edgemill.results import Attempt
from edgemill.search.goals import answers, tells_time
from edgemill.search.halving import Short, judge
from edgemill.search.knobs import Knobs, name_of
from edgemill.search.outcomes import TooBig, energy_mj, outcome_of, require_energy
from edgemill.search.plan import Plan, stages_of
from edgemill.search.record import SearchRecord
from edgemill.search.study import Outcome, SearchStudy, Trial
from edgemill.select import excess
from edgemill.store import StepRecord
from edgemill.targets import Target, load_target
from edgemill.validate.verdict import GateFacts
from flows.candidates import Built
from flows.chain import Site, in_order, planned, run_stage
from flows.measure import measure
from flows.variant import build
from tasks.benchmark import benchmark
from tasks.ingest import count_macs
from tasks.run import open_store

SHORT_ONLY = "short_only"
"""Fact of a trial whose student was never trained in full, because it does not fit on the device."""
_LETTERS: Mapping[type, str] = {Distill: "w", Channels: "k", Prune: "s", Cluster: "c"}


@dataclass
class Bench:
    """What the trials of a search share.

    Attributes:
        made: models by name.
        tried: attempts of every candidate by its name.
    """

    site: Site
    plan: Plan
    made: dict[str, Model] = field(default_factory=dict)
    tried: dict[str, list[Attempt]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chains = {name_of(knobs): knobs for knobs in self.plan.candidates}

    def require_energy(self) -> None:
        """Refuse, before the first trial, a goal for which there are no figures.

        Raises:
            RecipeError: the energy is neither measured nor estimated on a target.
        """
        for target in filter(tells_time, map(load_target, self.site.recipe.targets)):
            require_energy(self._of_checkpoint(target), target.name)

    def attempts(self, knobs: Knobs) -> list[Attempt]:
        """One chain on every target that runs its number format: built, screened and measured.

        Raises:
            EdgemillError: a compressing stage failed.
        """
        name = name_of(knobs)
        if name not in self.tried:
            stages = stages_of(knobs, self.plan)
            site = self._site(stages)
            model = self._model(site, stages)
            detail = "-".join(knobs.fallback)
            self.tried[name] = self._on_targets(site, model, knobs.scheme, detail)
        return self.tried[name]

    def _short_attempts(self, knobs: Knobs) -> list[Attempt]:
        stages = stages_of(knobs, self.plan, short=True)
        site, model = self._site(stages), self.site.checkpoint
        for stage in in_order(stages):
            after = planned(model, stage, f"{_label(stage)}-short")
            model = after.model_copy(update={"files": run_stage(site, stage, model).outputs})
        return self._on_targets(site, model, stages.quantize.schemes[0], in_any_case=True)

    def short(self, study: SearchStudy, trial: Trial) -> tuple[str | None, Outcome] | None:
        """Judge a new student after a short training; None where it is worth the full one.

        Returns:
            why no chain with this student is worth it, and what is known; without a reason where this chain fits on
            no device, which more training would not change and which says nothing of the student's other formats.
        """
        attempts = self._short_attempts(trial.knobs)
        outcome = self.outcome(attempts)
        if outcome.cause is not None and outcome.score is None:
            return None, replace(outcome, facts={**outcome.facts, SHORT_ONLY: True})
        if outcome.score is None or len(outcome.values) < len(self.plan.goals):
            return None
        values = tuple(outcome.values[goal] for goal in self.plan.goals)
        facts = [_screen(attempt) for attempt in attempts if attempt.screened is not None]
        usual = next((item.baseline_accuracy for item in facts if item.baseline_accuracy is not None), outcome.score)
        error = max((_standard_error(item) for item in facts), default=0.0)
        judgement = judge(
            Short(trial.name, values, outcome.score),
            study.shorts(),
            needed=usual - self.site.recipe.budget.max_accuracy_drop,
            standard_error=error,
        )
        study.note_short(trial, values, outcome.score)
        return None if judgement.promoted else (judgement.reason, outcome)

    def outcome(self, attempts: list[Attempt]) -> Outcome:
        """What the study is told of a chain.

        Raises:
            EdgemillError: a step failed on every target; the first reason.
        """
        done = [attempt for attempt in attempts if attempt.measured is not None]
        screened = {attempt.target.name: _screen(attempt) for attempt in attempts if attempt.screened is not None}
        failures = [attempt.failure for attempt in attempts if attempt.failure is not None]
        if failures and not done:
            raise failures[0]
        measured = {
            attempt.target.name: self._figures(attempt, attempt.measured) for attempt in done if attempt.measured
        }
        too_big = {attempt.target.name: _too_big(attempt) for attempt in attempts if attempt.too_big is not None}
        return outcome_of(self.plan.goals, measured, screened, self._tested, too_big)

    def _figures(self, attempt: Attempt, measured: StepRecord) -> dict[str, Any]:
        """What the goals take of an attempt, and of the checkpoint."""
        facts = dict(measured.facts)
        if Goal.ENERGY in self.plan.goals and tells_time(attempt.target):
            facts["baseline_energy_mj"] = energy_mj(self._of_checkpoint(attempt.target))
        if Goal.MACS in self.plan.goals:
            facts["macs"] = self._macs(attempt.model)
            facts["baseline_macs"] = self._macs(self.site.checkpoint)
        return facts

    def _macs(self, model: Model) -> int:
        return count_macs(model.files["onnx"], self.site.data, model.name)

    def built(self, record: SearchRecord) -> Built:
        """Everything that was measured; of the two ends of the front also the models between their steps."""
        for name in dict.fromkeys((*record.front[:1], *record.front[-1:])):
            stages = stages_of(self.chains[name], self.plan)
            for link in self._model(self._site(stages), stages).chain:
                between = candidate_name(link.model, None)
                if between not in self.tried:
                    self.tried[between] = self._on_targets(self.site, self.made[link.model], None)
        models = [self.site.checkpoint, *self.made.values()]
        return Built(models, [attempt for attempts in self.tried.values() for attempt in attempts])

    def _site(self, stages: Stages) -> Site:
        return replace(self.site, recipe=self.site.recipe.model_copy(update={"stages": stages}))

    def _model(self, site: Site, stages: Stages) -> Model:
        model = site.checkpoint
        for stage in in_order(stages):
            after = planned(model, stage, _label(stage))
            if after.name not in self.made:
                self.made[after.name] = after.model_copy(update={"files": run_stage(site, stage, model).outputs})
            model = self.made[after.name]
        return model

    def _on_targets(
        self, site: Site, model: Model, scheme: Scheme | None, detail: str = "", *, in_any_case: bool = False
    ) -> list[Attempt]:
        targets = [load_target(name) for name in site.recipe.targets]
        attempts = [Attempt(model, scheme, target, detail) for target in targets if (scheme or FP32) in target.formats]
        for attempt in attempts:
            build(site, attempt)
            measured_anyway = in_any_case and answers(attempt.target)
            measure(attempt, site.checkpoint, site.recipe, site.data, in_any_case=measured_anyway)
        return attempts

    def _of_checkpoint(self, target: Target) -> Mapping[str, Any]:
        """The checkpoint measured as if it were a variant."""
        onnx = self.site.checkpoint.files["onnx"]
        return benchmark(
            onnx, onnx, target, self.site.recipe, self.site.data, f"{self.site.checkpoint.name} -> {target.name}"
        ).facts

    @property
    def _tested(self) -> int:
        return Dataset(open_store().path(self.site.data)).sizes[SplitName.TEST]


def _label(stage: Distill | Channels | Prune | Cluster) -> str:
    """Letter and extent, as in the names of trials."""
    if isinstance(stage, Distill):
        extent: float | None = stage.student.width
    elif isinstance(stage, Channels):
        extent = stage.keep
    else:
        extent = stage.sparsity if isinstance(stage, Prune) else stage.clusters
    return _LETTERS[type(stage)] + ("" if extent is None else f"{extent:.3g}")


def _screen(attempt: Attempt) -> GateFacts:
    if attempt.screened is None:
        raise attempt.failure or InvariantError("A chain was not compared with the checkpoint.", where=attempt.subject)
    return GateFacts.model_validate(attempt.screened.facts)


def _too_big(attempt: Attempt) -> TooBig:
    assert attempt.compiled is not None
    assert attempt.too_big is not None
    device = DeviceFigures.model_validate(attempt.compiled.facts["device"])
    return TooBig(excess(device, attempt.target.limits), attempt.too_big)


def _standard_error(facts: GateFacts) -> float:
    """Of the drop on validation data, from its one-sided bound."""
    main = facts.main
    if main.estimate is None or main.upper is None:
        return 0.0
    return (main.upper - main.estimate) / NormalDist().inv_cdf(main.confidence)
