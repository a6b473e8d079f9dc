"""The end of a run: bundles, report, summary, MLflow, and what Prefect shows."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml
from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run

from edgemill.artifact import Artifact, canonical_json, digest_text
from edgemill.benchmark.host import fingerprint
from edgemill.bundle import Origin, write_bundle
from edgemill.candidate import Model
from edgemill.ledger import FILE as STEPS
from edgemill.ledger import Ledger
from edgemill.recipe import Recipe
from edgemill.report.html import render_html
from edgemill.report.markdown import render_markdown
from edgemill.report.matrix import FEWEST, matrix_svg
from edgemill.search.record import SearchRecord
from edgemill.step import tool_versions
from edgemill.store import StepRecord, Store, storage_error, write_atomically
from edgemill.summary import CheckpointFacts, DataFacts, Summary, TargetResult
from edgemill.targets import load_target
from tasks.progress import Tally
from tasks.tracking import Tracking

MATRIX = "matrix.svg"
_TOOLS = ("edgemill", "tensorflow", "tensorflow-model-optimization", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


@dataclass(frozen=True)
class Delivery:
    """Everything a finished run has to hand over."""

    recipe: Recipe
    data: StepRecord
    ingested: StepRecord
    targets: Sequence[TargetResult]
    models: Sequence[Model]
    compiled: Mapping[str, Artifact]
    started: datetime
    folder: Path
    command: str | None
    tally: Tally
    ledger: Ledger
    searched: SearchRecord | None = None


def deliver(delivery: Delivery, store: Store, tracking: Tracking) -> Summary:
    """Write bundles, report and summary below the output folder, and the history to MLflow."""
    folder = delivery.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        targets = tuple(_bundle(target, delivery, store) for target in delivery.targets)
        summary = _summary(delivery, targets, {"MLflow": tracking.link})
        write_atomically(folder / "recipe.yaml", _recipe_text(delivery.recipe))
        write_atomically(folder / STEPS, delivery.ledger.text())
        write_atomically(folder / "report.html", render_html(summary))
        if len(summary.targets) >= FEWEST:
            write_atomically(folder / MATRIX, matrix_svg(summary, standalone=True))
        write_atomically(folder / "summary.json", summary.model_dump_json(indent=1))
    except OSError as error:
        raise storage_error(error, folder) from error
    bundles = [folder / target.bundle for target in targets if target.bundle is not None]
    files = [folder / name for name in ("recipe.yaml", STEPS, "report.html", "summary.json")]
    tags = {
        "edgemill.flow_run": str(flow_run.get_id()),
        "edgemill.checkpoint": summary.checkpoint.digest,
        "edgemill.data": summary.data.digest,
    }
    tracking.complete(summary, tags, [*files, *bundles], _lineage(delivery), delivery.compiled, store)
    _show(summary, tracking)
    return summary


def _bundle(target: TargetResult, delivery: Delivery, store: Store) -> TargetResult:
    folder = delivery.folder / "bundles" / target.target
    if target.selected_variant is None:
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier run: it would be taken for this one's
        return target
    paths = {digest: store.path(artifact) for digest, artifact in delivery.compiled.items()}
    recipe = delivery.recipe
    origin = Origin(
        model=recipe.name,
        task=recipe.task,
        preprocess=recipe.data.preprocess,
        checkpoint_digest=delivery.ingested.inputs["checkpoint"],
        data_digest=delivery.data.outputs["data"].digest,
    )
    described = next(item for item in map(load_target, recipe.targets) if item.name == target.target)
    write_bundle(folder, target, described, paths, origin)
    return target.model_copy(update={"bundle": f"bundles/{target.target}"})


def _summary(delivery: Delivery, targets: tuple[TargetResult, ...], links: dict[str, str]) -> Summary:
    recipe, ingested, data = delivery.recipe, delivery.ingested, delivery.data
    machine = {name: str(value) for name, value in fingerprint().items()}
    return Summary(
        name=recipe.name,
        task=recipe.task,
        recipe_digest=digest_text(canonical_json(recipe.model_dump(mode="json"))),
        budget=recipe.budget,
        seed=recipe.seed,
        checkpoint=CheckpointFacts(
            format=ingested.facts["format"],
            digest=ingested.inputs["checkpoint"],
            parameters=ingested.facts["parameters"],
            macs=ingested.facts["macs"],
        ),
        data=DataFacts(source=recipe.data.source, digest=data.outputs["data"].digest, splits=data.facts["sizes"]),
        targets=targets,
        started=delivery.started,
        finished=datetime.now(UTC),
        environment={**machine, "python": platform.python_version(), **tool_versions(_TOOLS)},
        steps_run=delivery.tally.run,
        steps_cached=delivery.tally.cached,
        links=links,
        search=delivery.searched,
        command=delivery.command or shlex.join(["edgemill", "optimize", str(delivery.folder / "recipe.yaml")]),
    )


def _recipe_text(recipe: Recipe) -> str:
    # what was not given is left out: a search fills in its own epochs there
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude_unset=True), sort_keys=False)


def _lineage(delivery: Delivery) -> list[Artifact]:
    """Checkpoint, data and every model before compilation, each with its parents."""
    artifacts = [delivery.data.outputs["data"]]
    for model in delivery.models:
        artifacts += model.files.values()
    return artifacts


def _show(summary: Summary, tracking: Tracking) -> None:
    key = re.sub(r"[^a-z0-9-]", "-", summary.name)
    create_markdown_artifact(render_markdown(summary), key=f"optimize-{key}", description="result per target")
    if tracking.link.startswith("http"):
        create_link_artifact(tracking.link, key=f"mlflow-{key}", link_text="history in MLflow")
    get_run_logger().info("%s", tracking.link)
