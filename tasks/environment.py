"""Process environment that Prefect and MLflow read on import: telemetry off, state inside the project.

Variables that the user has set are left alone.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from edgemill.store import state_folder

SERVICES = "services.json"

# DO_NOT_TRACK=1 silences Prefect only; MLflow compares with the word.
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would cut through the bars of the run
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a server that is gone is said soon
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Set what is not set: quiet telemetry, a Prefect home and a tracking database in the state folder.

    Must run before the first import of prefect or mlflow. While `edgemill up` runs, its servers are used.
    """
    state = state_folder()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    services = running_services(state)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ["MLFLOW_TRACKING_URI"] = services.get("mlflow") or tracking_database(state)
    if "PREFECT_HOME" not in os.environ:
        os.environ["PREFECT_HOME"] = str(state / "prefect")
        if "prefect" in services:
            os.environ.setdefault("PREFECT_API_URL", f"{services['prefect']}/api")


def tracking_database(state: Path) -> str:
    """Address of the embedded MLflow database."""
    folder = state / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def artifact_root(state: Path) -> str:
    """Where MLflow keeps files, the same with and without a server, so that both see them."""
    return (state / "mlflow" / "artifacts").as_uri()


def running_services(state: Path) -> dict[str, str]:
    """Addresses of the servers that `edgemill up` has started, as far as they answer."""
    try:
        record: dict[str, Any] = json.loads((state / SERVICES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: address for name, address in record.items() if answers(str(address))}


def answers(address: str, timeout_s: float = 1.0) -> bool:
    """Whether something listens at an http address."""
    url = urlparse(address)
    try:
        with socket.create_connection((url.hostname or "", url.port or 80), timeout=timeout_s):
            return True
    except OSError:
        return False
