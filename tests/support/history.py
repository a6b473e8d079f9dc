"""What MLflow holds of a model, as plain values that can be compared: ids and times left out."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

_OF_ONE_FLOW_RUN = {"mlflow.parentRunId", "edgemill.flow_run"}


def history(home: Path, name: str) -> dict[str, Any]:
    """Everything that counts in the embedded database of a state folder: what is deleted does not."""
    client = MlflowClient(f"sqlite:///{home}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name(name).experiment_id
    runs = client.search_runs([experiment], max_results=1000)
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(names), "two runs have one name"
    models = client.search_logged_models([experiment], max_results=1000)
    return {
        "runs": {
            run.info.run_name: {
                "status": run.info.status,
                "parent": names.get(run.data.tags.get("mlflow.parentRunId", "")),
                "metrics": {key: str(value) for key, value in run.data.metrics.items()},  # NaN equals itself as text
                "params": run.data.params,
                "tags": {key: value for key, value in run.data.tags.items() if key not in _OF_ONE_FLOW_RUN},
                "artifacts": sorted(_artifacts(client, run.info.run_id)),
            }
            for run in runs
        },
        "models": sorted(
            (
                model.name,
                str(model.status),
                model.model_type,
                names.get(model.source_run_id, "a deleted run"),
                sorted(model.tags.items()),
                sorted((metric.key, str(metric.value)) for metric in model.metrics or ()),
            )
            for model in models
        ),
        "registered": {
            registered.name: [
                (sorted(version.tags.items()), names.get(version.run_id, "a deleted run"), version.aliases)
                for version in client.search_model_versions(f"name = '{registered.name}'")
            ]
            for registered in client.search_registered_models()
        },
        "points": _most_points(home),
    }


def _artifacts(client: MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found: list[str] = []
    for item in client.list_artifacts(run_id, folder):
        found += _artifacts(client, run_id, item.path) if item.is_dir else [item.path]
    return found


def _most_points(home: Path) -> int:
    """The longest history of a metric of an active run; 1 where nothing was written twice."""
    query = """select max(points) from (
        select count(*) as points from metrics join runs using (run_uuid)
        where lifecycle_stage = 'active' group by run_uuid, key)"""
    with sqlite3.connect(home / "mlflow" / "mlflow.db") as database:
        points: int = database.execute(query).fetchone()[0]
    return points


def intact(database: Path) -> bool:
    """Whether SQLite finds no damage in a database."""
    with sqlite3.connect(database) as connection:
        answer: str = connection.execute("pragma integrity_check").fetchone()[0]
    return answer == "ok"
