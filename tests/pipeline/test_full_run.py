"""Whole runs of the digits example, by the real command, in the order in which a user does them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from edgemill.bundle import read_bundle
from edgemill.store import Store
from tests.support.runs import DIGITS, ROOT, SHORT, command, environment, optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TARGETS = ["x86-64-vnni", "raspberry-pi-5", "android-arm64"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def first(home):
    finished = optimize(home, *SHORT)
    assert finished.code == 0, finished.log
    return finished


def test_every_target_has_a_passing_variant_and_a_readable_bundle(home, first):
    assert [target["target"] for target in first.summary["targets"]] == TARGETS
    for target in first.summary["targets"]:
        assert target["verdict"] == "PASS"
        manifest = read_bundle(home / "runs" / "digits" / target["bundle"])
        assert manifest.default == target["selected"]
    report = (home / "runs" / "digits" / "report.html").read_text()
    assert all(target in report for target in TARGETS)
    assert "edgemill optimize" in report


def test_mlflow_holds_one_child_run_per_variant_with_the_same_metric_names(home, first):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED"]
    assert len(children) == sum(len(target["variants"]) for target in first.summary["targets"])
    assert len({frozenset(run.data.metrics) for run in children}) == 1
    for name in ("latency_p50_ms", "speedup", "size_bytes", "compressed_bytes", "peak_rss_bytes"):
        assert all(run.data.metrics[name] > 0 for run in children)
    for target in TARGETS:
        version = client.get_model_version_by_alias(f"digits--{target}", "candidate")
        assert version.tags["edgemill.digest"] in {item["selected"] for item in first.summary["targets"]}


def test_lineage_goes_back_to_checkpoint_and_data(home, first):
    digest = first.summary["targets"][2]["selected"]
    done = subprocess.run(
        ["edgemill", "lineage", digest, "--json"],
        env=environment(home) | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    ancestors = {node["digest"] for node in json.loads(done.stdout)["ancestors"]}
    assert {first.summary["checkpoint"]["digest"], first.summary["data"]["digest"]} <= ancestors


def test_the_second_run_computes_nothing_and_starts_no_child_process(home, first):
    again = optimize(home, *SHORT)
    assert again.code == 0, again.log
    assert again.summary["steps_run"] == 0
    assert again.summary["targets"] == first.summary["targets"]
    assert not list((home / "work").iterdir())


def test_one_changed_quantize_setting_runs_that_step_and_what_follows(home, first):
    changed = optimize(home, *SHORT, "stages.quantize.calibration=percentile")
    assert changed.code == 0, changed.log
    assert changed.steps_run
    assert not {step for step in changed.steps_run if step.startswith(("data", "ingest", "distill", "prune"))}
    assert "quantize.static" in changed.steps_run
    assert "quantize.litert" not in changed.steps_run


def test_too_few_test_samples_are_inconclusive_with_the_number_needed(home, first):
    few = optimize(home, *SHORT, "budget.max_accuracy_drop=0.005")
    assert few.code == 3, few.log
    undecided = [
        variant
        for target in few.summary["targets"]
        for variant in target["variants"]
        if variant["status"] == "inconclusive" and variant["verdict"]["samples_needed"]
    ]
    assert undecided
    assert all(variant["verdict"]["samples_needed"] > 600 for variant in undecided)


def test_a_kill_in_the_middle_of_distillation_goes_on_from_the_last_epoch(tmp_path):
    overrides = (*SHORT, "stages.distill.epochs=40")
    victim = subprocess.Popen(
        command(DIGITS, *overrides),
        env=environment(tmp_path),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("work/*/resume/*")):
        assert victim.poll() is None
        assert time.monotonic() < deadline, "training never reached its first checkpoint"
        time.sleep(0.2)
    time.sleep(2.0)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    resumed = optimize(tmp_path, *overrides)
    assert resumed.code == 0, resumed.log
    record = next(record for record in Store(tmp_path).records() if record.step == "distill.student")
    assert record.facts["history"]["resumed_from"] >= 1
    assert all(Store(tmp_path).intact(output) for item in Store(tmp_path).records() for output in item.outputs.values())
