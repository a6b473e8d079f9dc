"""The same trained weights in five formats: one baseline, a finished run each, pruning and QAT included."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.runs import DIGITS, ROOT, environment, optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FORMATS = {
    "keras2.h5": "keras2-h5",
    "keras2.keras": "keras2-zip",
    "keras3.keras": "keras3-zip",
    "saved_model": "saved-model",
    "model.onnx": "onnx",
}
QUICK = (
    "stages.distill=null",
    "stages.prune.epochs=2",
    "stages.quantize.qat.epochs=1",
    "stages.quantize.schemes=[int8_static,int8_qat]",
    "targets=[x86-64-vnni,android-arm64]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.3",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that all formats share, and beside it the checkpoint in every format."""
    folder = tmp_path_factory.mktemp("formats")
    source = DIGITS.parent / "digits.keras"
    script = ROOT / "tests" / "support" / "write_formats.py"
    command = [sys.executable, str(script), str(source), str(folder)]
    subprocess.run(command, env=environment(folder / "state"), check=True)
    return folder


@pytest.fixture(scope="module")
def baselines() -> dict[str, tuple[float, int]]:
    return {}


@pytest.mark.parametrize(("name", "form"), FORMATS.items(), ids=FORMATS.values())
def test_a_finished_run(home, baselines, name, form):
    document = yaml.safe_load(DIGITS.read_text())
    document["checkpoint"]["path"] = name
    recipe = home / f"{form}.yaml"
    recipe.write_text(yaml.safe_dump(document))
    finished = optimize(home / "state", *QUICK, recipe=recipe)
    assert finished.code == 0, finished.log
    assert finished.summary["checkpoint"]["format"] == form
    target = finished.summary["targets"][0]
    baselines[form] = (target["baseline"]["validation_score"], finished.summary["checkpoint"]["macs"])
    assert len(set(baselines.values())) == 1
    went_through = {variant["candidate"] for variant in target["variants"] if variant["profile"]}
    assert {"int8_static", "int8_qat", "prune-int8_qat"} <= went_through
