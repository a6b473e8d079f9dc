"""The compressing stages, one after another: what each is called, and the task that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgemill.artifact import Artifact
from edgemill.candidate import Link, Model
from edgemill.errors import CheckpointError
from edgemill.recipe import Channels, Cluster, Distill, Prune, PruneMethod, Recipe, Stages
from edgemill.store import StepRecord
from tasks.channels import prune_channels
from tasks.cluster import cluster
from tasks.distill import distill
from tasks.prune import prune

Stage = Distill | Channels | Prune | Cluster


@dataclass(frozen=True)
class Site:
    """What all candidates of a run share while they are built."""

    recipe: Recipe
    checkpoint: Model
    ingested: StepRecord
    data: Artifact
    on_validation: StepRecord


def in_order(stages: Stages) -> Iterator[Stage]:
    """The stages that a recipe asks for, in the order in which they run."""
    for stage in (stages.distill, stages.channels, stages.prune, stages.cluster):
        if stage is not None:
            yield stage


def planned(before: Model, stage: Stage, label: str | None = None) -> Model:
    """The model that a stage will make, still without files.

    Args:
        before: the model that the stage works on.
        stage: what is done to it.
        label: what names it in the names of candidates; None: the stage's own name.
    """
    kind, step, title = _words(stage)
    part = label or kind
    name = f"{before.name}-{part}" if before.chain else part
    return Model(name=name, chain=(*before.chain, Link(stage=kind, step=step, title=title, model=name)), files={})


def run_stage(site: Site, stage: Stage, before: Model) -> StepRecord:
    """Run a stage, or find it done.

    Raises:
        CheckpointError: the model cannot be trained, and this stage trains.
        EdgemillError: the step failed.
    """
    if isinstance(stage, Distill):
        return distill(site.recipe, stage, before, site.data)
    if isinstance(stage, Channels):
        return prune_channels(site.recipe, stage, before, site.checkpoint, site.data)
    if "keras" not in before.files:
        raise _untrainable(site, stage)
    if isinstance(stage, Prune):
        return prune(site.recipe, stage, before, site.checkpoint, site.data)
    return cluster(site.recipe, stage, before, site.checkpoint, site.data)


def _words(stage: Stage) -> tuple[str, str, str]:
    """Stage, step and a title for people."""
    if isinstance(stage, Distill):
        student = stage.student
        parts = [student.function or student.family or "", f"width {student.width:.3g}" if student.width else ""]
        return "distill", "distill.student", ", ".join(["distill", *filter(None, parts)])
    if isinstance(stage, Channels):
        return "channels", "channels.prune", f"channels, {stage.keep:.0%} of {stage.cost}"
    if isinstance(stage, Prune):
        share = "2:4" if stage.method is PruneMethod.N_M else f"{stage.sparsity:.0%} zeros"
        return "prune", "prune.sparsity", f"prune, {share}"
    return "cluster", "cluster.weights", f"cluster, {stage.clusters} weights a layer"


def _untrainable(site: Site, stage: Stage) -> CheckpointError:
    kind, *_ = _words(stage)
    facts = site.ingested.facts
    return CheckpointError(
        f"The checkpoint cannot be trained, so stage {kind} cannot run.",
        where=f"stages.{kind}",
        expected="a Keras model, or a distill stage with a student family before",
        got="; ".join([facts["format"], *(f"{item['layer']}: {item['reason']}" for item in facts["unbridged"])]),
        remedy="add stages.distill with a student family, or give the Keras checkpoint",
    )
