"""All writes to MLflow: one experiment per model name, one parent run per result, one child per variant.

A run is found again by its identity (recipe, checkpoint, data, tools, machine), so that running
again, or after a kill, completes the same MLflow run and never doubles it. Two runs of the same
result at the same time write it one after the other.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlparse

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from edgemill.artifact import Artifact, canonical_json, digest_text
from edgemill.benchmark.host import fingerprint_digest
from edgemill.errors import ServiceError
from edgemill.files import locked
from edgemill.recipe import Recipe
from edgemill.step import tool_versions
from edgemill.store import StepRecord, Store, state_folder
from edgemill.summary import Status, Summary, VariantResult
from tasks.database import ensure_database
from tasks.environment import answers, artifact_root

IDENTITY = "edgemill.identity"
DIGEST = "edgemill.digest"
PARENTS = "edgemill.parents"
RESULT = "edgemill.result"

_ANSWER_TIMEOUT_S = 5.0
_PAGE = 1000
_KNOBS = ("width", "keep", "sparsity", "clusters")


class Tracking:
    """One parent run in MLflow, by explicit id (the fluent state is per thread and not used)."""

    def __init__(self, client: MlflowClient, experiment: str, run_id: str, lock: Path) -> None:
        self._client = client
        self._experiment = experiment
        self._lock = lock
        self.run_id = run_id

    @classmethod
    def open(cls, recipe: Recipe, identity: Mapping[str, object]) -> Tracking:
        """Create the parent run of an identity, or find it again.

        Args:
            identity: JSON values that decide the result.

        Raises:
            ServiceError: MLflow does not answer.
        """
        address = os.environ["MLFLOW_TRACKING_URI"]
        digest = digest_text(canonical_json(identity))
        lock = state_folder() / "locks" / f"mlflow-{digest}"
        try:
            ensure_database(address)
            client = MlflowClient()
            with locked(lock):
                experiment = _experiment(client, recipe.name, address)
                runs = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{digest}'", max_results=1)
                if runs:
                    run_id = str(runs[0].info.run_id)
                    client.update_run(run_id, status="RUNNING")
                else:
                    run_id = str(
                        client.create_run(experiment, run_name=recipe.name, tags={IDENTITY: digest}).info.run_id
                    )
                client.log_dict(run_id, recipe.model_dump(mode="json"), "recipe.json")
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _unreachable(address, error) from error
        return cls(client, experiment, run_id, lock)

    @property
    def link(self) -> str:
        """Where a person sees the run: a page of the server, or how to start one."""
        address = os.environ["MLFLOW_TRACKING_URI"]
        if urlparse(address).scheme in ("http", "https"):
            return f"{address}/#/experiments/{self._experiment}/runs/{self.run_id}"
        return f"MLflow run {self.run_id} in {address} (`make up` shows it)"

    def fail(self) -> None:
        """Mark the run as failed; what was written stays."""
        try:
            self._client.set_terminated(self.run_id, "FAILED")
        except (MlflowException, SQLAlchemyError, OSError):
            return

    def complete(
        self,
        summary: Summary,
        tags: Mapping[str, str],
        files: Iterable[Path],
        models: Iterable[Artifact],
        compiled: Mapping[str, Artifact],
        store: Store,
    ) -> None:
        """Write the result: parent run, a child run per variant, models with their parents, registered models.

        Args:
            tags: of the parent run.
            files: files and folders to keep with the parent run (report, summary, bundles).
            models: every artifact of the chain before compilation.
            compiled: the file of every variant by digest.

        Raises:
            ServiceError: MLflow does not answer; nothing is lost, the next run writes it.
        """
        try:
            with locked(self._lock):
                known = self._models()
                self._log_chain(summary.name, models, known)
                self._log_variants(summary, compiled, store, known)
                self._log_search(summary)
                if self._tag(RESULT) != (content := _content_digest(summary)):
                    for file in files:
                        if file.is_dir():
                            self._client.log_artifacts(self.run_id, str(file), f"bundles/{file.name}")
                        else:
                            self._client.log_artifact(self.run_id, str(file))
                    self._client.set_tag(self.run_id, RESULT, content)
                for name, value in {**tags, "edgemill.exit_code": str(summary.exit_code)}.items():
                    self._client.set_tag(self.run_id, name, value)
                self._client.set_terminated(self.run_id, "FINISHED")
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise _unreachable(os.environ["MLFLOW_TRACKING_URI"], error) from error

    def _log_search(self, summary: Summary) -> None:
        """Hypervolume after each trial as a curve; a run that is completed again has the same points."""
        if summary.search is None:
            return
        now = int(time.time() * 1000)
        points = [Metric("search_hypervolume", value, now, i) for i, value in enumerate(summary.search.hypervolume)]
        known = {metric.step for metric in self._client.get_metric_history(self.run_id, "search_hypervolume")}
        self._client.log_batch(self.run_id, metrics=[point for point in points if point.step not in known])

    def _log_chain(self, name: str, artifacts: Iterable[Artifact], known: Sequence[LoggedModel]) -> None:
        """Every model before compilation, once an experiment."""
        ready = {model.tags.get(DIGEST, "") for model in known if model.status == LoggedModelStatus.READY}
        pending = {model.tags.get(DIGEST, ""): model for model in known if model.status != LoggedModelStatus.READY}
        for digest, artifact in {artifact.digest: artifact for artifact in artifacts}.items():
            if digest in pending:  # a kill came between its two writes
                self._client.finalize_logged_model(pending[digest].model_id, LoggedModelStatus.READY)
            elif digest not in ready:
                self._log_model(name, artifact, self.run_id)

    def _log_variants(
        self, summary: Summary, compiled: Mapping[str, Artifact], store: Store, known: Sequence[LoggedModel]
    ) -> None:
        """A child run for every variant; one that a kill left unfinished is made anew."""
        children = self._children()
        for target in summary.targets:
            for variant in target.variants:
                name = f"{variant.target}/{variant.candidate}"
                result = digest_text(variant.model_dump_json())
                run_id, known_result = children.get(name, ("", ""))
                if known_result == result:
                    continue
                if run_id:
                    self._discard(run_id, known, finished=bool(known_result))
                self._log_variant(name, result, variant, summary, compiled, store)

    def _discard(self, run_id: str, known: Iterable[LoggedModel], *, finished: bool) -> None:
        """Remove a child run that was measured anew, or that a kill left unfinished.

        A version that a finished run has registered stays: devices may run it.
        """
        if not finished:
            for version in self._client.search_model_versions(f"run_id = '{run_id}'"):
                self._client.delete_model_version(version.name, version.version)
        for model in known:
            if model.source_run_id == run_id:
                self._client.delete_logged_model(model.model_id)
        self._client.delete_run(run_id)

    def _tag(self, name: str) -> str | None:
        value: str | None = self._client.get_run(self.run_id).data.tags.get(name)
        return value

    def _children(self) -> dict[str, tuple[str, str]]:
        """Run id and digest of the result of every child run by name."""
        runs = self._client.search_runs(
            [self._experiment], f"tags.`mlflow.parentRunId` = '{self.run_id}'", max_results=1000
        )
        return {run.info.run_name: (run.info.run_id, run.data.tags.get(RESULT, "")) for run in runs}

    def _models(self) -> list[LoggedModel]:
        """Every model of the experiment."""
        models: list[LoggedModel] = []
        token: str | None = None
        while token is None or token:
            page = self._client.search_logged_models([self._experiment], max_results=_PAGE, page_token=token)
            models += page
            token = page.token or ""
        return models

    def _log_model(self, name: str, artifact: Artifact, run_id: str, extra: Mapping[str, str] | None = None) -> str:
        tags = {
            DIGEST: artifact.digest,
            PARENTS: ",".join(artifact.parents),
            "edgemill.step": artifact.step,
            "edgemill.kind": artifact.kind,
        }
        model = self._client.create_logged_model(
            self._experiment,
            name=f"{name}-{artifact.step}".replace(".", "-"),
            source_run_id=run_id,
            tags=tags | dict(extra or {}),
            model_type=artifact.kind,
        )
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return str(model.model_id)

    def _log_variant(
        self,
        name: str,
        result: str,
        variant: VariantResult,
        summary: Summary,
        compiled: Mapping[str, Artifact],
        store: Store,
    ) -> None:
        run = self._client.create_run(
            self._experiment,
            run_name=name,
            tags={
                "mlflow.parentRunId": self.run_id,
                DIGEST: variant.digest or "",
                "edgemill.status": variant.status,
                "edgemill.reason": variant.reason,
                "edgemill.latency_source": variant.profile.source if variant.profile else "",
                "edgemill.checkpoint": summary.checkpoint.digest,
                "edgemill.data": summary.data.digest,
            },
        )
        run_id = run.info.run_id
        now = int(time.time() * 1000)
        # the same names in every child run: what was not measured is NaN, so that pages can compare them
        metrics = [
            Metric(key, math.nan if value is None else value, now, 0) for key, value in variant.all_metrics.items()
        ]
        stages = "+".join(link.stage for link in variant.chain) or "none"
        params = {"target": variant.target, "candidate": variant.candidate, "scheme": variant.scheme, "chain": stages}
        params |= _knobs(summary, variant)
        self._client.log_batch(run_id, metrics=metrics, params=[Param(key, value) for key, value in params.items()])
        artifact = None if variant.digest is None else compiled[variant.digest]
        if artifact is not None:
            model_id = self._log_model(
                f"{summary.name}-{variant.target}", artifact, run_id, {"edgemill.status": variant.status}
            )
            on_model = [Metric(key, value, now, 0, model_id=model_id) for key, value in variant.metrics.items()]
            self._client.log_batch(run_id, metrics=on_model)
            if variant.passed:
                self._client.log_artifact(run_id, str(store.path(artifact)), "model")
            if variant.status is Status.SELECTED:
                self._register(f"{summary.name}--{variant.target}", run_id, artifact)
        self._client.set_terminated(run_id, "FINISHED")
        # written last: a child run without it is not taken for complete
        self._client.set_tag(run_id, RESULT, result)

    def _register(self, name: str, run_id: str, artifact: Artifact) -> None:
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        version = self._client.create_model_version(
            name,
            source=f"runs:/{run_id}/model",
            run_id=run_id,
            tags={DIGEST: artifact.digest, "edgemill.gate": "PASS"},
        )
        self._client.set_registered_model_alias(name, "candidate", version.version)


def _experiment(client: MlflowClient, name: str, address: str) -> str:
    """Id of the experiment of a model; created where there is none."""
    remote = urlparse(address).scheme in ("http", "https") and not _is_local(address)
    location = None if remote else f"{artifact_root(state_folder())}/{name}"
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            if (found := client.get_experiment_by_name(name)) is None:
                raise  # it was not another run, which had created it meanwhile
    return str(found.experiment_id)


def _content_digest(summary: Summary) -> str:
    return digest_text(canonical_json([target.model_dump(mode="json") for target in summary.targets]))


def identity_of(recipe: Recipe, data: StepRecord, ingested: StepRecord) -> dict[str, object]:
    """What decides a result: recipe, content, tools and the measuring machine, but no folder names."""
    settings = recipe.model_dump(mode="json")
    settings["checkpoint"].pop("path")
    settings["data"].pop("path")
    if recipe.search is not None:  # it fills in what was not given, so that matters too
        settings["given"] = recipe.stages.model_dump(mode="json", exclude_unset=True)
    return {
        "recipe": settings,
        "checkpoint": ingested.inputs["checkpoint"],
        "data": data.outputs["data"].digest,
        "tools": tool_versions(("edgemill", "tensorflow", "onnxruntime", "ai-edge-litert")),
        "host": fingerprint_digest(),
    }


def _knobs(summary: Summary, variant: VariantResult) -> dict[str, str]:
    """How far each stage of a searched chain goes, for the parallel coordinates of MLflow's compare page."""
    trials = () if summary.search is None else summary.search.trials
    knobs = next((trial.knobs for trial in trials if trial.name == variant.candidate), None)
    return {} if knobs is None else {name: str(getattr(knobs, name)) for name in _KNOBS}


def _is_local(address: str) -> bool:
    return urlparse(address).hostname in ("127.0.0.1", "localhost", "::1")


def require_answer() -> None:
    """Say at once, before hours of work, that the tracking server cannot be reached.

    Raises:
        ServiceError: it does not answer.
    """
    address = os.environ["MLFLOW_TRACKING_URI"]
    if urlparse(address).scheme in ("http", "https") and not answers(address, _ANSWER_TIMEOUT_S):
        raise _unreachable(address, None)


def _unreachable(address: str, cause: BaseException | None) -> ServiceError:
    return ServiceError(
        "MLflow does not answer.",
        where=address,
        got=None if cause is None else f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}",
        remedy="start it (`make up`), or correct MLFLOW_TRACKING_URI; finished steps stay in the store",
    )
