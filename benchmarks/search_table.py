"""Every chain of a small space, run for real once: what strategies of a search are replayed on.

The digits example, its own checkpoint and its own training samples. Each chain is distilled, pruned, clustered,
quantized, compiled, answered and measured by the steps of the pipeline, in child processes, through a store, so
shared prefixes are computed once and a killed run goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemill.artifact import Artifact
from edgemill.benchmark import BENCHMARK, BenchmarkSettings
from edgemill.cluster import CLUSTER, ClusterSettings
from edgemill.compile import CompileSettings
from edgemill.compile.backend import Refusal, backend_of
from edgemill.data import SplitName
from edgemill.data.call import load_call
from edgemill.distill import DISTILL, DistillSettings
from edgemill.errors import EdgemillError, ToolchainError
from edgemill.execute import Call, execute, release_workers
from edgemill.ingest.call import ingest_call
from edgemill.prune import PRUNE, PruneSettings
from edgemill.recipe import Recipe
from edgemill.recipe.document import load_recipe
from edgemill.search.knobs import Knobs, name_of
from edgemill.search.plan import Plan, resolve, stages_of
from edgemill.store import StepRecord, Store
from edgemill.targets import load_target
from edgemill.validate.call import compare_call, predict_call
from edgemill.validate.verdict import GateFacts

TARGET = "x86-64-vnni"
_SAME_TRAINING_SAMPLES = {"validation": 660, "calibration": 100, "test": 200, "seed": 7}
"""The example's samples, more of them for validation: of 260, few chains could show that they hold the budget."""


@dataclass(frozen=True)
class Grid:
    """What is tabulated.

    Attributes:
        width, sparsity, clusters: choices of the space.
        schemes: number formats.
        distill, prune, cluster: epochs.
    """

    width: tuple[float, ...]
    sparsity: tuple[float, ...]
    clusters: tuple[int, ...]
    schemes: tuple[str, ...]
    distill: int
    prune: int
    cluster: int


FULL = Grid((0.125, 0.25, 0.375, 0.5), (0.0, 0.5, 0.75), (0, 8, 32), ("int8_static", "fp16"), 60, 12, 6)


def recipe_of(grid: Grid, root: Path) -> Recipe:
    """The digits example with a search over the grid."""
    recipe = load_recipe(root / "examples" / "digits" / "recipe.yaml")
    document = recipe.model_dump(mode="json")
    shift = {"batch_size": 64, "augment": {"shift": 1}}
    document["data"]["split"] = _SAME_TRAINING_SAMPLES
    document["budget"]["max_accuracy_drop"] = 0.005
    document["targets"] = [TARGET]
    document["benchmark"] |= {"rounds": 12, "time_budget_s": 4, "precision": 0.03}
    stages = document["stages"]
    stages["distill"] |= {"student": {"width": 0.5}, "epochs": grid.distill}
    stages["prune"] |= {"sparsity": 0.5, "epochs": grid.prune}
    stages["cluster"] = {"clusters": 32, "epochs": grid.cluster, **shift}
    stages["quantize"]["schemes"] = list(grid.schemes)
    space = {"width": grid.width, "keep": (1.0,), "sparsity": grid.sparsity, "clusters": grid.clusters}
    document["search"] = {"preset": "default", "trials": 1000, "space": space}
    return Recipe.model_validate(document)


def plan_of(recipe: Recipe, trials: int) -> Plan:
    """The search's plan with a number of trials."""
    assert recipe.search is not None, "the recipe of the table has a search"
    return resolve(recipe.search.model_copy(update={"trials": trials}), recipe.stages, trainable=True)


def tabulate(grid: Grid, root: Path, work: Path) -> list[dict[str, Any]]:
    """Run every chain of the grid.

    Args:
        root: the repository.
        work: for the store; what is there already is not run again.

    Returns:
        a row a chain: `name`, the knobs, `latency` and `compressed_bytes` (ratios to the fp32 checkpoint),
        `violation`, `score`, `drop`, `seconds`; or `failure`.
    """
    recipe = recipe_of(grid, root)
    bench = _Bench(recipe, Store(work))
    plan = plan_of(recipe, 1000)
    rows = []
    for index, knobs in enumerate(plan.candidates):
        started = time.monotonic()
        row: dict[str, Any] = {"name": name_of(knobs), **knobs.record()}
        try:
            row |= bench.run(knobs, plan)
        except EdgemillError as error:
            row["failure"] = error.what
        rows.append(row)
        print(f"  {index + 1}/{len(plan.candidates)} {row['name']}: {time.monotonic() - started:.1f} s", flush=True)
    release_workers()
    return rows


class _Bench:
    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        self.target = load_target(TARGET)
        self.data = self._do(load_call(recipe)).outputs["data"]
        ingested = self._do(ingest_call(store, recipe.checkpoint, self.data, recipe.seed))
        self.files = dict(ingested.outputs)
        self.baseline = self._predict(self.files["onnx"])

    def run(self, knobs: Knobs, plan: Plan) -> dict[str, Any]:
        stages = stages_of(knobs, plan)
        recipe = self.recipe.model_copy(update={"stages": stages})
        records = list(self._train(recipe))
        files = {**self.files, **(records[-1].outputs if records else {})}
        route = backend_of(self.target).route(knobs.scheme, frozenset(files), self.target, recipe)
        if isinstance(route, Refusal) or route.step is None or route.settings is None:
            raise ToolchainError(getattr(route, "reason", "no quantize step"), where=name_of(knobs))
        given = {"data": self.data, "teacher": self.files["onnx"], **files}
        inputs = {name: given[form] for name, form in route.inputs.items()}
        quantized = self._do(Call(route.step, route.settings, inputs, seed=recipe.seed))
        source = {"model": quantized.outputs[route.output], "data": self.data}
        settings = CompileSettings(target=self.target, scheme=knobs.scheme)
        file = self._do(Call(backend_of(self.target).step, settings, source)).outputs["model"]
        compared = self._do(
            compare_call(self._predict(file), self.baseline, self.recipe, self.data, SplitName.VALIDATION)
        )
        facts = GateFacts.model_validate(compared.facts)
        measured = self._do(
            Call(
                BENCHMARK,
                BenchmarkSettings(benchmark=recipe.benchmark, target=self.target),
                {"variant": file, "baseline": self.files["onnx"], "data": self.data},
                seed=recipe.seed,
            )
        ).facts
        upper = facts.main.upper
        assert upper is not None, "the validation split is large enough for a bound"
        return {
            "latency": measured["ratio"],
            "compressed_bytes": measured["compressed_bytes"] / measured["baseline_compressed_bytes"],
            "violation": upper - facts.main.margin,
            "drop": facts.main.estimate,
            "score": facts.accuracy,
        }

    def _train(self, recipe: Recipe) -> Iterator[StepRecord]:
        stages, task = recipe.stages, recipe.task
        teacher, data, keras = self.files["onnx"], self.data, self.files["keras"]
        tuned = {"teacher": teacher, "data": data}
        calls = (
            (DISTILL, DistillSettings, stages.distill),
            (PRUNE, PruneSettings, stages.prune),
            (CLUSTER, ClusterSettings, stages.cluster),
        )
        for step, settings, stage in calls:
            if stage is None:
                continue
            given = settings(**stage.model_dump(), task=task)
            record = self._do(Call(step, given, {"keras": keras, **tuned}, seed=recipe.seed))
            keras = record.outputs["keras"]
            yield record

    def _predict(self, file: Artifact) -> Artifact:
        return self._do(predict_call(file, self.recipe, self.data, SplitName.VALIDATION)).outputs["predictions"]

    def _do(self, call: Call) -> StepRecord:
        return execute(self.store, call, lambda fraction, message: None).record
