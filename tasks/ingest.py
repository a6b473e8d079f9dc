"""Stage: turn the checkpoint, whatever its format, into an fp32 ONNX graph and, where it can, a Keras model."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.errors import CheckpointError
from edgemill.execute import Call
from edgemill.ingest import INGEST
from edgemill.ingest.companions import checkpoint_files
from edgemill.recipe import Checkpoint, Recipe
from edgemill.store import StepRecord, Store
from tasks.functions import function_identity, search_path
from tasks.run import open_store, perform


def store_checkpoint(store: Store, checkpoint: Checkpoint) -> Artifact:
    """Copy the checkpoint into the store, so that its bytes stay what was compressed.

    Raises:
        CheckpointError: it is missing, too large, or not the content that the recipe pins.
    """
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


def ingest(recipe: Recipe, data: Artifact) -> StepRecord:
    """Ingest the recipe's checkpoint and prove the result equal on real samples."""
    folder = Path(recipe.checkpoint.path).parent
    checkpoint = store_checkpoint(open_store(), recipe.checkpoint)
    call = Call(
        INGEST,
        # the content is an input; where it lay is no part of its identity
        recipe.checkpoint.model_copy(update={"path": "checkpoint", "sha256": None}),
        inputs={"checkpoint": checkpoint, "data": data},
        seed=recipe.seed,
        extra=function_identity(recipe.checkpoint.model_function, folder),
        search_path=search_path(recipe.checkpoint.model_function, folder),
    )
    return perform(call, Path(recipe.checkpoint.path).name)
