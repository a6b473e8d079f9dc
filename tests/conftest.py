"""Shared fixtures: a state folder per test, and the switch that renews golden files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# a loaded machine is no failure
settings.register_profile("edgemill", deadline=None)
settings.load_profile("edgemill")

# Before any test imports TensorFlow, Prefect or MLflow.
os.environ.update(
    TF_USE_LEGACY_KERAS="1",
    TF_CPP_MIN_LOG_LEVEL="3",
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew instead of comparing")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty state folder that Edgemill uses during the test."""
    folder = tmp_path / "state"
    monkeypatch.setenv("EDGEMILL_HOME", str(folder))
    return folder
