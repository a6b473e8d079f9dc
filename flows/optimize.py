"""The DAG: checkpoint -> ingest -> distill -> prune -> quantize -> compile -> validate -> benchmark -> select."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from edgemill.candidate import CHECKPOINT, Model
from edgemill.data import SplitName
from edgemill.errors import EdgemillError, InvariantError, ServiceError
from edgemill.execute import release_workers
from edgemill.guard import watch
from edgemill.ledger import Ledger
from edgemill.recipe import Recipe, resolve_paths
from edgemill.recipe.check import check_recipe
from edgemill.search.record import SearchRecord
from edgemill.store import state_folder
from edgemill.summary import Summary
from edgemill.targets import load_target
from flows.candidates import build_candidates
from flows.chain import Site
from flows.deliver import Delivery, deliver
from flows.evidence import measure_and_judge
from flows.readiness import skip_unready
from flows.search import search_candidates
from tasks.data import load_data
from tasks.environment import answers
from tasks.ingest import ingest
from tasks.progress import Tally, listening
from tasks.run import noting, open_store
from tasks.tracking import Tracking, identity_of, require_answer
from tasks.validate import predict

# waiting candidates cost nothing: how many steps run at once is limited in tasks.run
_CANDIDATES: Any = ThreadPoolTaskRunner(max_workers=16)


@flow(name="optimize", flow_run_name="{recipe.name}", task_runner=_CANDIDATES)
def optimize(
    recipe: Recipe, out: str | None = None, command: str | None = None, strict: bool = False
) -> State[dict[str, Any]]:
    """Compress one checkpoint for all targets of a recipe, gate the result, and record it in MLflow.

    Args:
        recipe: what to compress, with which data, how far, for which targets. Relative paths count
            from the project's folder.
        out: folder for report, summary and bundles; a folder below the state folder if left out.
        command: what to run to do the same again; derived if left out.
        strict: stop where a target lacks something on this machine, instead of leaving it out by name.
    """
    tally, ledger = Tally(), Ledger()
    with listening(tally.count), noting(ledger):
        summary = _optimize(recipe, out, command, strict, tally, ledger)
    result = summary.model_dump(mode="json")
    if summary.exit_code == 0:
        return Completed(data=result, message="every target has a passing variant")
    lacking = ", ".join(target.target for target in summary.targets if target.counts and target.selected is None)
    return Failed(data=result, message=f"no passing variant for {lacking}; the report says why")


def _optimize(
    recipe: Recipe, out: str | None, command: str | None, strict: bool, tally: Tally, ledger: Ledger
) -> Summary:
    started = datetime.now(UTC)
    recipe = resolve_paths(recipe, Path.cwd())
    check_recipe(recipe)
    whole = recipe
    recipe, skipped = skip_unready(whole, strict=strict)
    require_answer()
    data = load_data(recipe)
    samples = data.outputs["data"]
    ingested = ingest(recipe, samples)
    checkpoint = Model(name=CHECKPOINT, chain=(), files=ingested.outputs)
    tracking = Tracking.open(whole, identity_of(whole, data, ingested))
    try:
        folder = output_folder(recipe, out)
        on_validation = predict(checkpoint.files["onnx"], recipe, samples, SplitName.VALIDATION, CHECKPOINT)
        site = Site(recipe, checkpoint, ingested, samples, on_validation)
        searched: SearchRecord | None = None
        if recipe.search is None:
            built = build_candidates(site)
        else:
            built, searched = search_candidates(site, folder)
        release_workers()
        judged = {result.target: result for result in measure_and_judge(recipe, checkpoint, built.attempts, samples)}
        named = [load_target(name) for name in whole.targets]
        delivery = Delivery(
            recipe=whole,
            data=data,
            ingested=ingested,
            targets=[(judged | skipped)[target.name] for target in named],
            models=built.models,
            compiled={attempt.file.digest: attempt.file for attempt in built.attempts if attempt.file is not None},
            started=started,
            folder=folder,
            command=command,
            searched=searched,
            tally=tally,
            ledger=ledger,
        )
        return deliver(delivery, open_store(), tracking)
    except BaseException:
        tracking.fail()
        raise
    finally:
        release_workers()


def output_folder(recipe: Recipe, out: str | None) -> Path:
    """Where report, summary and bundles go."""
    return Path(out).absolute() if out is not None else state_folder() / "runs" / recipe.name


def run_from_command_line(recipe: Recipe, out: Path | None, command: str, strict: bool = False) -> tuple[Summary, Path]:
    """Run the flow in this process.

    Raises:
        EdgemillError: whatever stopped the run.
    """
    require_answer()
    api = os.environ.get("PREFECT_API_URL")
    if api and not answers(api):
        raise ServiceError(
            "The Prefect server does not answer.",
            where=api,
            remedy="start it (`make up`), or unset PREFECT_API_URL; finished steps stay in the store",
        )
    folder = output_folder(recipe, None if out is None else str(out))
    watch()  # Prefect starts a server of its own, which must not outlive us
    began = datetime.now(UTC)
    state = optimize(recipe, str(folder), command, strict, return_state=True)
    outcome = state.result(raise_on_failure=False)
    if isinstance(outcome, EdgemillError):
        raise outcome
    written = folder / "summary.json"
    if written.exists():
        summary = Summary.model_validate_json(written.read_bytes())
        if summary.finished >= began:
            return summary, folder
    cause = outcome if isinstance(outcome, BaseException) else None
    raise InvariantError("The flow ended without a result.", got=f"{type(outcome).__name__}: {outcome}") from cause
