"""Promises of the project's own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def test_the_deployments_start_with_the_digits_example():
    recipe = yaml.safe_load((ROOT / "examples/digits/recipe.yaml").read_text())
    recipe["checkpoint"]["path"] = "examples/digits/digits.keras"
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [deployment["name"] for deployment in deployments] == ["on-demand", "nightly"]
    assert all(deployment["parameters"] == {"recipe": recipe} for deployment in deployments)
    assert all(schedule["slug"] for deployment in deployments for schedule in deployment["schedules"])


def test_the_folder_mlflow_does_not_hide_the_package():
    import mlflow

    assert not list((ROOT / "mlflow").rglob("*.py"))
    assert mlflow.__version__


@pytest.mark.parametrize("name", ["dev.lock", "uv.lock"])
def test_locks_hold_hashes_and_no_addresses(name):
    text = (ROOT / "requirements" / name).read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
    assert pins
    assert all(line.endswith("\\") for line in pins), "a pin without a hash"
    assert "://" not in text


def test_the_wheel_holds_the_library_only():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = find_packages(str(ROOT), include=settings["include"])
    assert {package.partition(".")[0] for package in packages} == {"edgemill"}
    assert {"edgemill.ingest", "edgemill.report", "edgemill.targets"} <= set(packages)


def test_telemetry_is_off_in_what_we_start(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DO_NOT", "MLFLOW", "PREFECT"))}
    done = subprocess.run(
        [sys.executable, "-c", "import json, os, tasks; print(json.dumps(dict(os.environ)))"],
        env=kept | {"EDGEMILL_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    variables = json.loads(done.stdout)
    assert variables["DO_NOT_TRACK"] == "true"
    assert variables["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
