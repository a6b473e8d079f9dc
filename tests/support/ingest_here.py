"""Run the ingest step in this process, on whatever a test has written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgemill.artifact import Artifact, size_of
from edgemill.ingest.checkpoint import run
from edgemill.ingest.companions import checkpoint_files
from edgemill.recipe import Checkpoint
from edgemill.step import InputFile, StepContext


def ingest_here(path: Path) -> dict[str, Any]:
    """The facts of the step, and `files`: bytes of every file that it wrote."""
    settings = Checkpoint(path=str(path))
    with (
        tempfile.TemporaryDirectory(prefix="edgemill-") as folder,
        checkpoint_files(path, settings.max_bytes) as source,
    ):
        out, resume = Path(folder, "out"), Path(folder, "resume")
        out.mkdir()
        resume.mkdir()
        artifact = Artifact(
            digest="0" * 64, filename=source.name, kind="checkpoint", size_bytes=size_of(source), step="test"
        )
        context = StepContext(out=out, resume=resume, seed=0, report=lambda *_: None)
        outputs = run(settings, {"checkpoint": InputFile(source, artifact)}, context)
        return dict(outputs.facts) | {"files": {name: size_of(file.path) for name, file in outputs.files.items()}}
