"""Running the ingest step's body in a test's own folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgemill.artifact import Artifact
from edgemill.recipe import Checkpoint
from edgemill.step import InputFile, Outputs, StepContext


@pytest.fixture
def ingest(tmp_path: Path) -> Callable[..., Outputs]:
    """`ingest(path, data=None, **settings)`: run the body, once per call in a fresh folder."""
    from edgemill.ingest.checkpoint import run

    calls = iter(range(1000))

    def call(path: Path, data: Path | None = None, **settings: object) -> Outputs:
        folder = tmp_path / f"ingest-{next(calls)}"
        (folder / "out").mkdir(parents=True)
        (folder / "resume").mkdir()
        inputs = {"checkpoint": _input(path)} | ({} if data is None else {"data": _input(data)})
        context = StepContext(folder / "out", folder / "resume", 0, lambda *_: None)
        outputs = run(Checkpoint(path="", **settings), inputs, context)
        left = {item.name for item in (folder / "out").iterdir()}
        assert left == {file.path.name for file in outputs.files.values()}, "work files are left behind"
        return outputs

    return call


def _input(path: Path) -> InputFile:
    artifact = Artifact(digest="0" * 64, filename=path.name, kind="checkpoint", size_bytes=0, step="test")
    return InputFile(path, artifact)
