"""Stage: turn the checkpoint, whatever its format, into an fp32 ONNX graph and, where it can, a Keras model."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.execute import Call
from edgemill.ingest import COUNT, CountSettings
from edgemill.ingest.call import ingest_call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from tasks.run import open_store, perform


def ingest(recipe: Recipe, data: Artifact) -> StepRecord:
    """Ingest the recipe's checkpoint and prove the result equal on real samples."""
    call = ingest_call(open_store(), recipe.checkpoint, data, recipe.seed)
    return perform(call, Path(recipe.checkpoint.path).name)


def count_macs(onnx: Artifact, data: Artifact, subject: str) -> int:
    """Multiply-accumulates of one sample."""
    return int(perform(Call(COUNT, CountSettings(), {"onnx": onnx, "data": data}), subject).facts["macs"])
