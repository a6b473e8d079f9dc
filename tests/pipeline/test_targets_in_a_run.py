"""Targets with toolchains, own targets and targets that lack something, in whole runs of the digits example."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edgemill.bundle import read_bundle
from edgemill.cli import main
from tests.support.ready import usable
from tests.support.runs import DIGITS, optimize

PLAIN = (
    "stages.distill=null",
    "stages.prune=null",
    "stages.quantize.schemes=[int8_static]",
    "benchmark.rounds=6",
    "budget.max_accuracy_drop=0.3",
)
TIGHT = """
extends: cortex-m-tflm
title: a sensor with little memory
limits: {ram_bytes: 4000}
"""


@pytest.fixture
def recipe(tmp_path: Path):
    """Write the digits recipe with other targets into a folder that has an own target."""
    (tmp_path / "sensor.yaml").write_text(TIGHT)

    def write(*targets: str) -> Path:
        document = yaml.safe_load(DIGITS.read_text())
        document["checkpoint"]["path"] = str(DIGITS.parent / "digits.keras")
        document["targets"] = list(targets)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def test_strict_stops_before_anything_starts(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "none"))
    told = CliRunner().invoke(main, ["optimize", str(recipe("x86-64-vnni", "ethos-u55-128")), "--strict"])
    assert told.exit_code == 1
    assert "ethos-u55-128" in told.stderr
    assert "edgemill targets install vela" in told.stderr
    assert "edgemill targets install vela tflm" in told.stderr


def test_nothing_that_can_be_tried_is_an_error(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "none"))
    told = CliRunner().invoke(main, ["optimize", str(recipe("ethos-u55-128"))])
    assert told.exit_code == 1
    assert "None of the targets" in told.stderr


def test_two_targets_of_one_name_are_refused(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path / "home"))
    path = recipe("x86-64-vnni", "x86-64-vnni.yaml")
    (tmp_path / "x86-64-vnni.yaml").write_text("extends: x86-64-vnni\n")
    told = CliRunner().invoke(main, ["optimize", str(path)])
    assert told.exit_code == 2
    assert "same name" in told.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_lacks_is_skipped_and_the_others_go_on(recipe, tmp_path):
    finished = optimize(
        tmp_path / "home",
        *PLAIN,
        recipe=recipe("x86-64-vnni", "ethos-u55-128"),
        EDGEMILL_TOOLCHAINS=str(tmp_path / "none"),
    )
    assert finished.code == 0, finished.log
    first, second = finished.summary["targets"]
    assert first["verdict"] == "PASS"
    assert "edgemill targets install vela" in second["skipped"]
    assert "SKIPPED" in (tmp_path / "home" / "runs" / "digits" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_microcontrollers_and_an_own_target_with_less_memory(recipe, tmp_path):
    for name in ("cortex-m-tflm", "ethos-u55-128", "cortex-m4-bare-c"):
        usable(name)
    targets = ("cortex-m-tflm", "sensor.yaml", "ethos-u55-128", "cortex-m4-bare-c", "jetson-tensorrt")
    finished = optimize(tmp_path / "home", *PLAIN, "benchmark.sustained={minutes: 0.1}", recipe=recipe(*targets))
    assert finished.code == 3, finished.log
    by_name = {target["target"]: target for target in finished.summary["targets"]}
    folder = tmp_path / "home" / "runs" / "digits"
    for name in ("cortex-m-tflm", "ethos-u55-128", "cortex-m4-bare-c"):
        assert by_name[name]["verdict"] == "PASS", finished.log
        manifest = read_bundle(folder / by_name[name]["bundle"])
        device = manifest.default_variant.profile.device
        assert device is not None
        assert 0 < device.ram_bytes < 192 << 10
        assert by_name[name]["variants"][0]["missing"] == ["a long run: no time can be taken here"]
        assert by_name[name]["variants"][0]["arithmetic"]["source"].startswith(("simulated:", "probed:", "emulated:"))
    sensor = by_name["sensor"]
    assert sensor["selected"] is None
    assert "over the target's limit of 4,000" in sensor["variants"][0]["reason"]
    assert by_name["jetson-tensorrt"]["unproven"]
    assert by_name["jetson-tensorrt"]["variants"][0]["status"] == "unproven"
    assert (folder / "matrix.svg").read_text().startswith("<svg")
    steps = json.loads((folder / "steps.json").read_text())
    assert "compile.tflm int8_static -> sensor" in json.dumps(steps)
    again = optimize(tmp_path / "home", *PLAIN, recipe=recipe(*targets))
    assert again.steps_run == []
