"""The plan of a search: its valid chains, the order in which it begins, and the stages of each chain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edgemill.errors import RecipeError
from edgemill.recipe import (
    Channels,
    Cluster,
    Distill,
    Goal,
    Preset,
    Prune,
    Quantize,
    Scheme,
    Search,
    Stages,
    Student,
)
from edgemill.search.goals import USUAL_GOALS
from edgemill.search.knobs import NEUTRAL_SHARE, Knobs, name_of
from edgemill.search.presets import EXTENTS, Extent
from edgemill.search.space import (
    Choices,
    choices_of,
    combinations,
    fixed_student,
    own_chain,
    plain_chains,
    refusal,
    start_list,
    used_choices,
)

_Stage = TypeVar("_Stage", Distill, Channels, Prune, Cluster)

_SHOWN_REASONS = 6


@dataclass(frozen=True)
class Plan:
    """A search with everything filled in.

    Attributes:
        stages: how each stage trains; a stage that is None is left out in every chain.
        short: share of the epochs after which a new student is judged (`edgemill.search.halving`); None: never.
        candidates: every valid chain, once.
        start: the first trials, in this order.
    """

    preset: Preset
    trials: int
    time_budget_s: float
    goals: tuple[Goal, ...]
    short: float | None
    stages: Stages
    choices: Choices
    candidates: tuple[Knobs, ...]
    start: tuple[Knobs, ...]

    def record(self) -> dict[str, Any]:
        """JSON value that decides whether a study is the same; trials and time do not."""
        return {
            "goals": [goal.value for goal in self.goals],
            "short": self.short,
            "stages": self.stages.model_dump(mode="json"),
            "candidates": [knobs.record() for knobs in self.candidates],
        }


def resolve(
    search: Search,
    stages: Stages,
    trainable: bool,
    *,
    goals: Sequence[Goal] = USUAL_GOALS,
    formats: Collection[Scheme] | None = None,
    labels: bool = True,
) -> Plan:
    """Fill in the preset and list the valid chains.

    A stage that the recipe lacks, and epochs that it does not name, are the preset's; a value of the recipe's own
    stages joins the preset's choices, so that the chain without a search is always among the candidates.

    Args:
        search: the recipe's section.
        stages: the recipe's stages.
        trainable: whether the checkpoint is at hand as a Keras model.
        goals: what is made small, see `edgemill.search.goals`.
        formats: schemes that at least one target runs; None: all.
        labels: whether the task has labels; without, the teacher's answers are all there is to learn from.

    Raises:
        RecipeError: no chain of the space is valid.
    """
    extent = EXTENTS[search.preset]
    template = _filled(stages, extent, labels)
    choices = choices_of(search, stages, extent)
    refused: dict[str, str] = {}
    candidates: list[Knobs] = []
    for knobs in combinations(choices):
        reason = refusal(knobs, template, trainable, formats)
        if reason is None:
            candidates.append(knobs)
        else:
            refused.setdefault(reason, name_of(knobs))
    plain = [] if search.space.width is not None or fixed_student(template) else plain_chains(choices)
    usable = [knobs for knobs in plain if refusal(knobs, template, trainable, formats) is None]
    candidates += [knobs for knobs in usable if knobs not in candidates]
    if not candidates:
        raise RecipeError(
            "The space of the search holds no valid chain.",
            where="search.space",
            expected="at least one combination that the checkpoint, the targets and the number formats allow",
            got="; ".join(f"{name}: {reason}" for reason, name in list(refused.items())[:_SHOWN_REASONS]),
            remedy="widen search.space or stages.quantize.schemes, or give a checkpoint that can be trained",
        )
    if len({name_of(knobs) for knobs in candidates}) < len(candidates):
        raise RecipeError(
            "Two chains of the search would have the same name.",
            where="search.space",
            expected="choices that differ in their first three digits",
        )
    trials = search.trials if search.trials is not None else extent.trials
    return Plan(
        preset=search.preset,
        trials=min(trials, len(candidates)),
        time_budget_s=search.time_budget_s if search.time_budget_s is not None else extent.time_budget_s,
        goals=tuple(goals),
        short=extent.short,
        stages=template,
        choices=used_choices(choices, candidates),
        candidates=tuple(candidates),
        start=start_list(candidates, own_chain(stages, extent)),
    )


def stages_of(knobs: Knobs, plan: Plan, *, short: bool = False) -> Stages:
    """The recipe's stages for one chain.

    Args:
        short: only the student, with `plan.short` of its epochs, and int8 after training where the recipe has it:
            what `edgemill.search.halving` judges.
    """
    template = plan.stages
    distill, channels = template.distill, template.channels
    if distill is not None and not fixed_student(template):
        width = {"student": distill.student.model_copy(update={"width": knobs.width})}
        distill = distill.model_copy(update=width) if knobs.width != NEUTRAL_SHARE else None
    if channels is not None:
        channels = channels.model_copy(update={"keep": knobs.keep}) if knobs.keep != NEUTRAL_SHARE else None
    rules = template.quantize.mixed.model_copy(update={"wider": knobs.fallback or template.quantize.mixed.wider})
    quantize = template.quantize.model_copy(update={"schemes": (knobs.scheme,), "mixed": rules})
    if short:
        share = plan.short if plan.short is not None else 1.0
        distill = None if distill is None else _shortened(distill, share)
        channels = None if channels is None else _shortened(channels, share)
        scheme = Scheme.INT8_STATIC if Scheme.INT8_STATIC in plan.choices.scheme else knobs.scheme
        return Stages(distill=distill, channels=channels, quantize=quantize.model_copy(update={"schemes": (scheme,)}))
    prune, cluster = template.prune, template.cluster
    return Stages(
        distill=distill,
        channels=channels,
        prune=prune.model_copy(update={"sparsity": knobs.sparsity}) if prune and knobs.sparsity else None,
        cluster=cluster.model_copy(update={"clusters": knobs.clusters}) if cluster and knobs.clusters else None,
        quantize=quantize,
    )


def _shortened(stage: _Stage, share: float) -> _Stage:
    return stage.model_copy(update={"epochs": max(1, round(share * stage.epochs))})


# -- filling in ----------------------------------------------------------------------------------


def _filled(stages: Stages, extent: Extent, labels: bool) -> Stages:
    soft = {} if labels else {"soft_weight": 1.0}
    width = extent.width[0]
    return Stages(
        distill=_timed(stages.distill, extent.distill)
        or Distill(student=Student(width=width), epochs=extent.distill, **soft),
        channels=_timed(stages.channels, extent.channels) or Channels(epochs=extent.channels, **soft),
        prune=_timed(stages.prune, extent.prune) or Prune(epochs=extent.prune, **soft),
        cluster=_timed(stages.cluster, extent.cluster) or Cluster(epochs=extent.cluster, **soft),
        quantize=_quantize(stages.quantize, extent, soft),
    )


def _timed(stage: _Stage | None, epochs: int) -> _Stage | None:
    if stage is None or "epochs" in stage.model_fields_set:
        return stage
    return stage.model_copy(update={"epochs": epochs})


def _quantize(quantize: Quantize, extent: Extent, soft: dict[str, float]) -> Quantize:
    qat = quantize.qat
    told = qat.model_fields_set
    update: dict[str, float] = {} if "epochs" in told else {"epochs": extent.qat}
    update |= {} if "soft_weight" in told else soft
    return quantize.model_copy(update={"qat": qat.model_copy(update=update)})
