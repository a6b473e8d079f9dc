"""The ingest step of one checkpoint: its content in the store, and the call that runs the step on it."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.errors import CheckpointError
from edgemill.execute import Call
from edgemill.functions import function_identity, search_path
from edgemill.ingest import INGEST
from edgemill.ingest.companions import checkpoint_files
from edgemill.recipe import Checkpoint
from edgemill.store import Store


def ingest_call(store: Store, checkpoint: Checkpoint, data: Artifact | None, seed: int) -> Call:
    """Copy the checkpoint into the store, so that its bytes stay what was compressed, and call the step on it.

    Raises:
        CheckpointError: it is missing, too large, of a refused kind, or not the content that the recipe pins.
        RecipeError: the module of its model function is missing.
    """
    folder = Path(checkpoint.path).parent
    inputs = {"checkpoint": _store(store, checkpoint)}
    if data is not None:
        inputs["data"] = data
    return Call(
        INGEST,
        # the content is an input; where it lay is no part of its identity
        checkpoint.model_copy(update={"path": "checkpoint", "sha256": None}),
        inputs,
        seed=seed,
        extra=function_identity(checkpoint.model_function, folder),
        search_path=search_path(checkpoint.model_function, folder),
    )


def _store(store: Store, checkpoint: Checkpoint) -> Artifact:
    with checkpoint_files(Path(checkpoint.path), checkpoint.max_bytes) as source:
        artifact = store.put(source, kind="checkpoint", step="checkpoint")
    if checkpoint.sha256 is not None and artifact.digest != checkpoint.sha256:
        raise CheckpointError(
            "The checkpoint is not the one that the recipe pins.",
            where=checkpoint.path,
            expected=f"SHA-256 {checkpoint.sha256}",
            got=artifact.digest,
            remedy="take the right file, or correct checkpoint.sha256",
        )
    return artifact
