"""Hypervolume after 8, 16 and 32 trials: Edgemill's search, Optuna's samplers, random, and a recipe without search.

The objective is real: every chain of the space (digits example: widths x sparsities x clusters x number formats) is
run once through the steps of the pipeline, see `benchmarks.search_table`. The strategies are then replayed on this
table of measurements, those that draw random numbers with the same 20 seeds (with three, random orders reach between
0.2 and 1 of the best after 8 trials). The search draws none. Asking and telling go through the study and its SQLite
file. --quick replays on the table that is kept in benchmarks/results instead of running the chains anew.
Hypervolume is in square decades below the fp32 checkpoint (time and compressed bytes), of the chains whose bound
of the accuracy drop on validation data is within the budget.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from benchmarks.common import Claim, arguments, finish
from benchmarks.search_table import FULL, plan_of, recipe_of, tabulate
from edgemill.recipe import Goal
from edgemill.search.front import history, hypervolume
from edgemill.search.knobs import Knobs, name_of
from edgemill.search.plan import Plan
from edgemill.search.propose import Sampler, distribution
from edgemill.search.study import Outcome, SearchStudy, Subject

_ROOT = Path(__file__).parent.parent
_KEPT = _ROOT / "benchmarks" / "results" / "search.json"
_BUDGETS = (8, 16, 32)
_SEEDS = tuple(range(20))
_RANDOM = ("tpe", "nsga2", "random")
_POPULATION = 8
_SINGLE = "single recipe"
Table = Mapping[str, Mapping[str, Any]]


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, help="folder of the store, to go on after a kill (default: a new one)")
    parser.add_argument("--table", type=Path, help="replay on the chains of an earlier result instead of running them")
    options = parser.parse_args()
    strategies = ("search", "random", _SINGLE) if options.quick else ("search", "tpe", "nsga2", "random", _SINGLE)
    chains = _chains(options.work, _KEPT if options.quick and options.table is None else options.table)
    table = {chain["name"]: chain for chain in chains if "failure" not in chain}
    plan = plan_of(recipe_of(FULL, _ROOT), len(chains))
    if missing := [name_of(knobs) for knobs in plan.candidates if name_of(knobs) not in table]:
        print("chains that failed, and are told so: " + ", ".join(missing))
    best = hypervolume([_point(chain) for chain in table.values() if chain["violation"] <= 0])
    source = "were run for real" if not options.quick else f"were run for real when {_KEPT.name} was made"
    print(f"{len(chains)} chains {source}; together they reach {best:.4g} decades\N{SUPERSCRIPT TWO}")
    rows = [_row(strategy, plan, table, best) for strategy in strategies]
    columns = ["strategy", *(f"after_{count}" for count in _BUDGETS), *(f"share_{count}" for count in _BUDGETS)]
    claims = list(_claims({row["strategy"]: row for row in rows}))
    rows.append(
        {"strategy": "every chain", f"after_{_BUDGETS[-1]}": best, f"share_{_BUDGETS[-1]}": 1.0, "chains": chains}
    )
    return finish(rows, columns, claims, options.json, tools=("optuna", "tensorflow", "onnxruntime"))


def _chains(work: Path | None, table: Path | None) -> list[dict[str, Any]]:
    if table is not None:
        if not table.is_file():
            sys.exit(f"There is no table to replay on.\n  where: {table}\n  remedy: run without --quick and --table")
        kept = json.loads(table.read_text(encoding="utf-8"))["rows"]
        chains: list[dict[str, Any]] = next(row["chains"] for row in kept if "chains" in row)
        return chains
    if work is not None:
        return tabulate(FULL, _ROOT, work)
    with tempfile.TemporaryDirectory() as folder:
        return tabulate(FULL, _ROOT, Path(folder))


def _row(strategy: str, plan: Plan, table: Table, best: float) -> dict[str, Any]:
    seeds = _SEEDS if strategy in _RANDOM else _SEEDS[:1]
    runs = [list(_names(strategy, plan, table, seed, _BUDGETS[-1])) for seed in seeds]
    row: dict[str, Any] = {"strategy": strategy, "seeds": list(seeds), "runs": runs}
    grown = [history([_feasible(table.get(name)) for name in names]) for names in runs]
    for count in _BUDGETS:
        reached = [volumes[min(count, len(volumes)) - 1] for volumes in grown]
        row[f"after_{count}"] = math.fsum(reached) / len(reached)
        row[f"worst_{count}"] = min(reached)
        row[f"share_{count}"] = row[f"after_{count}"] / best
    return row


def _claims(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Claim]:
    for count in _BUDGETS:
        ours = rows["search"][f"after_{count}"]
        yield Claim(f"search_over_random_{count}", ours / rows["random"][f"after_{count}"], ">=", 1.0)
        yield Claim(f"search_over_single_recipe_{count}", ours / rows[_SINGLE][f"after_{count}"], ">=", 1.0)
    yield Claim(f"share_of_best_{_BUDGETS[1]}", rows["search"][f"share_{_BUDGETS[1]}"], ">=", 0.95)


# -- strategies ----------------------------------------------------------------------------------


def _names(strategy: str, plan: Plan, table: Table, seed: int, most: int) -> Iterator[str]:
    """Chains in the order in which a strategy tries them."""
    if strategy == _SINGLE:
        return _single(plan)
    if strategy == "nsga2":
        return _genetic(plan, table, seed, most)
    if strategy == "random":
        return iter(random.Random(seed).sample([name_of(knobs) for knobs in plan.candidates], most))
    return _searched(plan, table, Sampler.TPE if strategy == "tpe" else Sampler.MODEL, seed, most)


def _searched(plan: Plan, table: Table, sampler: Sampler, seed: int, most: int) -> Iterator[str]:
    plan = replace(plan, trials=min(most, len(plan.candidates)), time_budget_s=math.inf)
    with tempfile.TemporaryDirectory() as folder:
        study = SearchStudy(Path(folder), plan, Subject("0" * 64), seed, sampler)
        while (trial := study.ask()) is not None:
            chain = table.get(trial.name)
            if chain is None:
                study.fail(trial, "this chain failed when the table was made")
            else:
                values = {Goal.LATENCY: chain["latency"], Goal.COMPRESSED_BYTES: chain["compressed_bytes"]}
                study.tell(trial, Outcome(values, chain["violation"], chain["score"]))
            yield trial.name
        study.close()


def _genetic(plan: Plan, table: Table, seed: int, most: int) -> Iterator[str]:
    """Optuna's own loop; what was tried before is answered from the table and does not count as a trial."""
    places = {plan.choices.index(knobs): name_of(knobs) for knobs in plan.candidates}
    distributions = {name: distribution(name, plan.choices) for name in plan.choices.open}
    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=_POPULATION)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    tried: set[str] = set()
    for _ in range(100 * most):
        trial = study.ask(distributions)
        knobs = ("width", "keep", "sparsity", "clusters", "scheme", "fallback")
        name = places.get(tuple(int(trial.params.get(knob, 0)) for knob in knobs))
        chain = None if name is None else table.get(name)
        if chain is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            trial.set_constraint("gate", chain["violation"])
            study.tell(trial, [math.log10(value) for value in _point(chain)])
        if name is not None and name not in tried:
            tried.add(name)
            yield name
        if len(tried) == most:
            return


def _single(plan: Plan) -> Iterator[str]:
    """What a run without a search makes of the recipe: the model after each stage, in every number format."""
    stages = plan.stages
    assert stages.distill is not None, "the example has a distill stage"
    assert stages.prune is not None, "the example has a prune stage"
    assert stages.cluster is not None, "the table's recipe has a cluster stage"
    width, sparsity = stages.distill.student.width or 1.0, stages.prune.sparsity
    for scheme in plan.choices.scheme:
        for zeros, clusters in ((0.0, 0), (sparsity, 0), (sparsity, stages.cluster.clusters)):
            knobs = Knobs(scheme, width, 1.0, zeros, clusters)
            if knobs in plan.candidates:
                yield name_of(knobs)


def _point(chain: Mapping[str, Any]) -> tuple[float, float]:
    return chain["latency"], chain["compressed_bytes"]


def _feasible(chain: Mapping[str, Any] | None) -> tuple[float, float] | None:
    return None if chain is None or chain["violation"] > 0 else _point(chain)


if __name__ == "__main__":
    sys.exit(main())
