"""`edgemill reproduce` and `edgemill lineage` by the real command, on a small run and on its MLflow runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from edgemill.ledger import FILE
from edgemill.targets import load_target
from edgemill.targets.capability import blockers
from tests.support.runs import DIGITS, ROOT, environment, optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

IN_TOOLCHAINS = ("x86-64-openvino", "cortex-m-tflm")
TARGETS = ["x86-64-vnni", *(name for name in IN_TOOLCHAINS if not blockers(load_target(name)))]
SMALL = (
    "stages.distill=null",
    "stages.prune.epochs=2",
    "stages.quantize.schemes=[int8_static]",
    f"targets=[{', '.join(TARGETS)}]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.3",
)


def edgemill(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgemill.cli", *words],
        env=environment(home),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with one run, of a checkpoint that a test can change."""
    folder = tmp_path_factory.mktemp("home")
    document = yaml.safe_load(DIGITS.read_text())
    (folder / "digits.keras").write_bytes((DIGITS.parent / "digits.keras").read_bytes())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    finished = optimize(folder, *SMALL, recipe=folder / "recipe.yaml")
    assert finished.code == 0, finished.log
    return folder


@pytest.fixture(scope="module")
def client(home) -> MlflowClient:
    return MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")


def run_id(client: MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name("digits").experiment_id
    return next(run.info.run_id for run in client.search_runs([experiment]) if run.info.run_name == name)


def test_a_run_gives_the_same_digests_again(home):
    done = edgemill(home, "reproduce", str(home / "runs" / "digits"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same: all" in done.stdout
    steps = {line.split()[0]: line for line in done.stdout.splitlines() if "." in line.split()[0]}
    for name in ("data.load", "ingest.checkpoint", "prune.sparsity", "quantize.static", "compile.onnxruntime"):
        assert steps[name].split()[1:3] == [str(int(steps[name].split()[1])), "0"]
    assert "it measures" in steps["benchmark.latency"]


def test_an_mlflow_run_is_reproduced_and_a_difference_is_told(home, client, tmp_path):
    """MLflow's copy of the ledger says that another file was made by one step."""
    parent = run_id(client, "digits")
    local = Path(client.download_artifacts(parent, FILE, str(tmp_path)))
    entries = json.loads(local.read_text())
    next(entry for entry in entries if entry["step"] == "quantize.static")["outputs"]["onnx"] = "0" * 64
    local.write_text(json.dumps(entries))
    original = (home / "runs" / "digits" / FILE).read_text()
    client.log_artifact(parent, str(local))
    kept = tmp_path / "kept"
    done = edgemill(home, "reproduce", parent, "--keep", str(kept), "--json")
    assert done.returncode == 3, done.stdout + done.stderr
    answer = json.loads(done.stdout)
    wrong = [row for row in answer["rows"] if row["outcome"] not in ("same", "varies", "conditional")]
    assert [(row["step"], row["outcome"], row["detail"]) for row in wrong] == [
        ("quantize.static", "differs", "output onnx")
    ]
    assert not answer["same"]
    assert (kept / "out" / "summary.json").exists()
    assert (kept / "state" / "objects").is_dir()
    local.write_text(original)
    client.log_artifact(parent, str(local))


def test_what_is_no_run_is_refused(home, tmp_path):
    for subject in (str(tmp_path), "0" * 32, "nothing"):
        done = edgemill(home, "reproduce", subject)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    full = edgemill(home, "reproduce", str(home / "runs" / "digits"), "--keep", str(home))
    assert full.returncode == 2
    assert "not empty" in full.stderr


def test_another_checkpoint_is_named_and_nothing_is_run(home):
    path = home / "digits.keras"
    content = path.read_bytes()
    path.write_bytes(content + b"\0")
    done = edgemill(home, "reproduce", str(home / "runs" / "digits"), "--anyway")
    path.write_bytes(content)
    assert done.returncode == 2, done.stdout
    assert "checkpoint: recorded" in done.stderr
    assert "done " not in done.stderr


def test_lineage_of_an_mlflow_run(home, client):
    summary = json.loads((home / "runs" / "digits" / "summary.json").read_text())
    name = "x86-64-vnni/int8_static"
    child = json.loads(edgemill(home, "lineage", run_id(client, name), "--json").stdout)
    variants = summary["targets"][0]["variants"]
    assert child["subject"]["digest"] == next(item["digest"] for item in variants if item["candidate"] == "int8_static")
    assert summary["checkpoint"]["digest"] in {node["digest"] for node in child["ancestors"]}
    parent = json.loads(edgemill(home, "lineage", run_id(client, "digits"), "--json").stdout)
    assert parent["subject"]["digest"] == summary["checkpoint"]["digest"]
    unknown = edgemill(home, "lineage", "0" * 32)
    assert unknown.returncode == 2
    assert "no such MLflow run" in unknown.stderr
