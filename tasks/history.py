"""Looking into MLflow: the files of a recorded run, and the content that a run stands for."""

from __future__ import annotations

import os
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from edgemill.errors import RecipeError, ServiceError
from edgemill.ledger import FILE
from tasks.database import ensure_database
from tasks.tracking import DIGEST, require_answer

_PARENT = "mlflow.parentRunId"
_CHECKPOINT = "edgemill.checkpoint"


def fetch_run(run_id: str, folder: Path) -> Path:
    """Copy recipe, summary and steps of a run out of MLflow.

    Args:
        run_id: of a parent run, or of one of its children.
        folder: to write into.

    Returns:
        The folder, as `edgemill optimize --out` leaves it, without bundles and report.

    Raises:
        RecipeError: there is no such run, or it has not these files.
        ServiceError: MLflow does not answer.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    client, run = _run(run_id)
    owner = run.data.tags.get(_PARENT, run_id)
    for name in ("recipe.yaml", "summary.json", FILE):
        try:
            client.download_artifacts(owner, name, str(folder))
        except (MlflowException, OSError) as error:
            raise RecipeError(
                "The MLflow run does not hold the files of a finished run.",
                where=f"run {owner} in {os.environ['MLFLOW_TRACKING_URI']}",
                expected=name,
                got=str(error).splitlines()[0],
                remedy="run its recipe again with this version; that records them",
            ) from error
    return folder


def digest_of_run(run_id: str) -> str:
    """The content that a run stands for: a child run for its compiled file, a parent run for its checkpoint.

    Raises:
        RecipeError: there is no such run, or it made no file.
        ServiceError: MLflow does not answer.
    """
    _, run = _run(run_id)
    digest: str = run.data.tags.get(DIGEST) or run.data.tags.get(_CHECKPOINT, "")
    if not digest or (_PARENT in run.data.tags and not run.data.tags.get(DIGEST)):
        raise RecipeError(
            "The MLflow run stands for no file.",
            where=f"run {run_id}",
            got=f"status {run.info.status}",
            remedy="give a finished run, or a digest",
        )
    return digest


def _run(run_id: str) -> tuple[MlflowClient, Run]:
    require_answer()
    address = os.environ["MLFLOW_TRACKING_URI"]
    try:
        ensure_database(address)
        client = MlflowClient()
        return client, client.get_run(run_id)
    except MlflowException as error:
        raise RecipeError(
            "There is no such MLflow run.",
            where=address,
            got=str(error).splitlines()[0],
            remedy="look it up (`make up` shows MLflow), or set EDGEMILL_HOME to the state folder of the run",
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise ServiceError("MLflow does not answer.", where=address, got=str(error).splitlines()[0]) from error
