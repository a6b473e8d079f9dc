"""The search: ask the study for a chain, run it as ordinary steps, tell the study what came out.

Chains share what they have in common through the store, and so does a run that goes on after a kill.
"""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from edgemill.errors import EdgemillError, ServiceError, StoreError
from edgemill.files import write_atomically
from edgemill.recipe import Goal, Scheme, Task
from edgemill.search.goals import answers, goals_of
from edgemill.search.plan import Plan, resolve
from edgemill.search.record import SearchRecord, TrialState
from edgemill.search.study import SearchStudy, Subject, Trial
from edgemill.step import tool_versions
from edgemill.store import state_folder
from edgemill.targets import load_target
from flows.bench import SHORT_ONLY, Bench
from flows.candidates import Built
from flows.chain import Site
from tasks.progress import Progress, publish
from tasks.run import unvisited

FILE = "search.json"
_TOOLS = ("edgemill", "tensorflow", "onnxruntime", "ai-edge-litert", "optuna")


def search_candidates(site: Site, folder: Path) -> tuple[Built, SearchRecord]:
    """Try chains until the search is over; what it has found so far stands in `search.json` after every trial.

    Args:
        folder: output folder of the run.

    Returns:
        every chain that was measured, in this run or an earlier one of the same study, ready to be gated, with
        the fp32 models between the steps of the fastest and the smallest; and the search for the report.

    Raises:
        RecipeError: the space holds no valid chain.
        StoreError: the study cannot be written.
    """
    recipe = site.recipe
    assert recipe.search is not None, "the flow asks for a search only where the recipe has one"
    plan = _plan(site)
    study = SearchStudy(state_folder() / "search", plan, _subject(site), recipe.seed)
    bench = Bench(site, plan)
    if Goal.ENERGY in plan.goals:
        bench.require_energy()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        while (trial := study.ask()) is not None:
            _note(f"trial {trial.number}", f"{trial.name} ({trial.origin})")
            _try.submit(unvisited(bench), unvisited(study), unvisited(trial), trial.name).result()
            record = study.record()
            _note(f"trial {trial.number}", _words(record, trial))
            write_atomically(folder / FILE, record.model_dump_json(indent=1))
        record = study.record()
    finally:
        study.close()
    _note("search", f"{len(record.trials)} trials; ended because {record.stopped_because}")
    for done in record.trials:
        if done.state in (TrialState.COMPLETE, TrialState.INFEASIBLE) and SHORT_ONLY not in done.facts:
            bench.attempts(bench.chains[done.name])
    return bench.built(record), record


def _plan(site: Site) -> Plan:
    recipe = site.recipe
    assert recipe.search is not None
    targets = [load_target(name) for name in recipe.targets]
    formats = {name for target in targets if answers(target) for name in target.formats}
    return resolve(
        recipe.search,
        recipe.stages,
        "keras" in site.checkpoint.files,
        goals=goals_of(recipe.search.goals, targets),
        formats={scheme for scheme in Scheme if scheme in formats},
        labels=recipe.task not in (Task.UNLABELLED, Task.ANOMALY),
    )


def _subject(site: Site) -> Subject:
    recipe = site.recipe
    targets = {target.name: target.digest for target in map(load_target, recipe.targets)}
    return Subject(
        checkpoint=site.ingested.inputs["checkpoint"],
        identities={
            "data": site.data.digest,
            "targets": targets,
            "budget": recipe.budget.model_dump(mode="json"),
            "gates": recipe.gates.model_dump(mode="json"),
            "benchmark": recipe.benchmark.model_dump(mode="json"),
            "tools": tool_versions(_TOOLS),
        },
    )


def _note(label: str, message: str) -> None:
    publish(Progress(label, "note", message=message))
    get_run_logger().info("%s: %s", label, message)


def _words(record: SearchRecord, trial: Trial) -> str:
    """What became of a trial, one line."""
    found = next(item for item in record.trials if item.number == trial.number)
    figures = [f"{goal} {value:.3f}" for goal, value in found.values.items()]
    score = [] if found.score is None else [f"validation {found.score:.4f}"]
    place = "on the front" if found.name in record.front else found.state.value
    return ", ".join([place, *figures, *score]) + (f": {found.cause}" if found.cause else "")


@task(name="trial", task_run_name="trial {subject}", cache_policy=NO_CACHE)
def _try(bench: Bench, study: SearchStudy, trial: Trial, subject: str) -> None:
    """Run one chain and tell the study; a chain that fails is an answer too."""
    try:
        if study.unjudged(trial) and (stopped := bench.short(study, trial)) is not None:
            reason, outcome = stopped
            if reason is None:
                study.tell(trial, outcome)
            else:
                study.stop(trial, reason, outcome)
            return
        outcome = bench.outcome(bench.attempts(trial.knobs))
    except EdgemillError as error:
        # a full disk or a server that is gone says nothing of the chain
        study.fail(trial, str(error).replace("\n  ", "; "), again=isinstance(error, StoreError | ServiceError))
        return
    study.tell(trial, outcome)
