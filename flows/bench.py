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
from edgemill.recipe import Channels, Cluster, Distill, Goal, Prune, Scheme, Stages
from edgemill.results import Attempt
from edgemill.search.halving import Short, judge
from edgemill.search.knobs import Knobs, name_of
from edgemill.search.outcomes import energy_mj, outcome_of, require_energy
from edgemill.search.plan import Plan, stages_of
from edgemill.search.record import SearchRecord
from edgemill.search.study import Outcome, SearchStudy, Trial
from edgemill.targets import Target, load_target
from edgemill.validate.verdict import GateFacts
from flows.candidates import Built
from flows.chain import Site, in_order, planned, run_stage
from flows.measure import measure
from flows.variant import build
from tasks.benchmark import benchmark
from tasks.run import open_store

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
        for target in map(load_target, self.site.recipe.targets):
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

    def short(self, study: SearchStudy, trial: Trial) -> tuple[str, Outcome] | None:
        """Judge a new student after a short training: why it is stopped, None where it is worth the full one."""
        attempts = self._short_attempts(trial.knobs)
        outcome = self.outcome(attempts)
        if outcome.score is None:
            return None
        values = tuple(outcome.values[goal] for goal in self.plan.goals)
        facts = [_screen(attempt) for attempt in attempts]
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
        measured = {attempt.target.name: dict(attempt.measured.facts) for attempt in done if attempt.measured}
        if Goal.ENERGY in self.plan.goals:
            for attempt in done:
                usual = energy_mj(self._of_checkpoint(attempt.target))
                measured[attempt.target.name]["baseline_energy_mj"] = usual
        return outcome_of(self.plan.goals, measured, screened, self._tested)

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
            measure(attempt, site.checkpoint, site.recipe, site.data, in_any_case=in_any_case)
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


def _standard_error(facts: GateFacts) -> float:
    """Of the drop on validation data, from its one-sided bound."""
    main = facts.main
    if main.estimate is None or main.upper is None:
        return 0.0
    return (main.upper - main.estimate) / NormalDist().inv_cdf(main.confidence)
