"""Artifacts: immutable files or folders named by the SHA-256 of their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_BLOCK = 1 << 20


class Frozen(BaseModel):
    """Base of every value object: immutable, and unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(Frozen):
    """One input or output of a model."""

    name: str
    dtype: str = Field(description="numpy name of the element type, e.g. float32 or int8")
    shape: tuple[int | None, ...] = Field(description="batch first; None where the size is free")
    scale: float | None = Field(None, description="real = scale * (stored - zero_point)")
    zero_point: int | None = None


class Signature(Frozen):
    """What goes into a model and what comes out, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Artifact(Frozen):
    """A stored file or folder.

    `facts` are measured properties of the content (JSON values); `parents` are the digests of
    the artifacts it was made from, so that the chain reads back to the checkpoint and the data.
    """

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    filename: str
    kind: str = Field(description="onnx, keras, saved_model, tflite, dataset, predictions, json, html ...")
    size_bytes: int = Field(ge=0)
    step: str
    parents: tuple[str, ...] = ()
    signature: Signature | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_text(text: str) -> str:
    """SHA-256 of a text as 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_path(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's sorted list of (relative path, file digest)."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        return digest_text(canonical_json([[p.relative_to(path).as_posix(), digest_path(p)] for p in files]))
    sha = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size
