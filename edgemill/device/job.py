"""What a board is asked to do, and where the files of it lie."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edgemill.artifact import Artifact, Frozen, digest_path, size_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.recipe import Benchmark
from edgemill.step import InputFile
from edgemill.targets.spec import Target

PROTOCOL = 2
JOB, OUT = "job.json", "out"
"""In the folder of a job: its description, and what it makes."""


class Part(Frozen):
    """A file or folder of a job."""

    kind: str = Field(description="of the artifact, e.g. onnx")
    filename: str = Field(pattern=r"^[^/]+$")


class Job(Frozen):
    """A measurement."""

    protocol: int = PROTOCOL
    target: Target
    benchmark: Benchmark
    confidence: float = Field(0.95, gt=0.5, lt=1, description="two-sided confidence of the ratio's interval")
    variant: Part
    baseline: Part
    timed: bool = Field(True, description="whether variant and baseline are compared")
    answer: SplitName | None = Field(None, description="split whose samples the variant answers")


def place(folder: Path, name: str, filename: str) -> Path:
    """Where a file of a job lies.

    Args:
        folder: of the job.
        name: variant, baseline or data.
        filename: of the file or folder.
    """
    return folder / name / filename


def part_file(folder: Path, name: str, part: Part) -> InputFile:
    """A model of a job as the measuring code takes it."""
    path = place(folder, name, part.filename)
    artifact = Artifact(
        digest=digest_path(path), filename=part.filename, kind=part.kind, size_bytes=size_of(path), step="board"
    )
    return InputFile(path, artifact)


def data_of(folder: Path) -> Dataset:
    """The samples of a job."""
    return Dataset(place(folder, "data", "data"))
