"""The store: artifacts by content, and a record of every finished step.

Layout of the state folder:
    objects/<aa>/<digest>/<filename>   content, read-only
    steps/<aa>/<key>.json              one record per finished step
    work/<key>/                        scratch of a running or interrupted step
    locks/<key>                        so that two runs never do the same step at once
Nothing is visible under its final name before it is whole: content and records are written beside
it and renamed. What a kill leaves behind is used by the next run of the same step, or removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from edgemill.artifact import Artifact, Frozen, Signature, digest_path, size_of
from edgemill.errors import EdgemillError, InvariantError, StoreError
from edgemill.files import locked, make_read_only, remove, sync, sync_folder, write_atomically

__all__ = ["StepRecord", "Store", "busy", "state_folder", "storage_error", "write_atomically"]

MINIMUM_FREE_BYTES = 256 << 20

_PUTTING = "putting"
_STAGING = "put-"


class StepRecord(Frozen):
    """A finished execution of a step: what went in, what came out, and with which tools."""

    key: str
    step: str
    version: int
    settings: Any
    inputs: dict[str, str] = Field(description="digest of every input by name")
    outputs: dict[str, Artifact]
    facts: dict[str, Any]
    tools: dict[str, str]
    seed: int
    extra: dict[str, str]
    varies: str = Field("", description="why another run gives other outputs; empty for a deterministic step")
    wall_s: float
    finished_at: str = Field(description="UTC, ISO 8601")


def state_folder() -> Path:
    """Where Edgemill keeps its state: EDGEMILL_HOME, else `.edgemill` in the working directory."""
    return Path(os.environ.get("EDGEMILL_HOME", ".edgemill")).absolute()


def storage_error(error: OSError, where: Path) -> EdgemillError:
    """The error to show for a failed write into the state folder."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StoreError(
        "The disk is full." if full else "The state folder cannot be written.",
        where=str(where),
        got=error.strerror or str(error),
        remedy="free some space" if full else "make it writable, or set EDGEMILL_HOME to another folder",
    )


class Store:
    """Artifacts and step records in one folder."""

    def __init__(self, root: Path) -> None:
        """Open or create a store.

        Raises:
            StoreError: the folder cannot be written, or the disk is nearly full.
        """
        self.root = root
        try:
            for name in ("objects", "steps", "work", "locks"):
                (root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
            self._tidy()
        except OSError as error:
            raise storage_error(error, root) from error
        free = shutil.disk_usage(root).free
        if free < MINIMUM_FREE_BYTES:
            raise StoreError(
                "The disk is nearly full.",
                where=str(root),
                expected=f"at least {MINIMUM_FREE_BYTES >> 20} MiB free",
                got=f"{free >> 20} MiB free",
                remedy="free some space, or set EDGEMILL_HOME to another disk",
            )

    # -- artifacts ---------------------------------------------------------------------------

    def path(self, artifact: Artifact) -> Path:
        """Where the content of an artifact can be read."""
        return self._object(artifact.digest) / artifact.filename

    def put(
        self,
        source: Path,
        *,
        kind: str,
        step: str,
        filename: str | None = None,
        parents: tuple[str, ...] = (),
        signature: Signature | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Copy a file or folder into the store.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            artifact = Artifact(
                digest=digest_path(source),
                filename=filename or source.name,
                kind=kind,
                size_bytes=size_of(source),
                step=step,
                parents=parents,
                signature=signature,
                facts=dict(facts or {}),
            )
            if not self.intact(artifact):
                self._publish(source, artifact)
        except OSError as error:
            raise storage_error(error, self.root) from error
        return artifact

    def intact(self, artifact: Artifact) -> bool:
        """Whether the content is there and still has its digest."""
        path = self.path(artifact)
        return path.exists() and digest_path(path) == artifact.digest

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _publish(self, source: Path, artifact: Artifact) -> None:
        folder = self._object(artifact.digest)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(self.root / "locks" / _PUTTING, fcntl.LOCK_SH):
            staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self.root / "work"))
            try:
                copy = staging / artifact.filename
                if source.is_dir():
                    shutil.copytree(source, copy)
                else:
                    shutil.copyfile(source, copy)
                if digest_path(copy) != artifact.digest:
                    raise InvariantError("A file changed while it was stored.", where=str(source))
                sync(copy)
                make_read_only(copy)
                target = folder / artifact.filename
                if target.exists():
                    remove(target)
                copy.replace(target)
                sync_folder(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    # -- step records ------------------------------------------------------------------------

    def record(self, key: str) -> StepRecord | None:
        """The record of a finished step if all its outputs are still intact."""
        try:
            record = StepRecord.model_validate_json(self._record_path(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return record if all(self.intact(output) for output in record.outputs.values()) else None

    def commit(self, record: StepRecord) -> None:
        """Make a finished step visible to later runs.

        Raises:
            StoreError: it cannot be written.
        """
        path = self._record_path(record.key)
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, record.model_dump_json(indent=1))
        except OSError as error:
            raise storage_error(error, self.root) from error

    def records(self) -> Iterator[StepRecord]:
        """Every finished step, in no particular order."""
        for path in (self.root / "steps").glob("*/*.json"):
            try:
                yield StepRecord.model_validate_json(path.read_bytes())
            except ValidationError:
                continue

    def _record_path(self, key: str) -> Path:
        return self.root / "steps" / key[:2] / f"{key}.json"

    # -- running steps -----------------------------------------------------------------------

    def workspace(self, key: str) -> Path:
        """Scratch folder of a step; what an interrupted run left under `resume/` is still there."""
        folder = self.root / "work" / key
        folder.mkdir(exist_ok=True)
        with busy(folder):
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "out").mkdir()
            (folder / "resume").mkdir(exist_ok=True)
        return folder

    def discard_workspace(self, key: str) -> None:
        """Forget the scratch folder of a finished step."""
        shutil.rmtree(self.root / "work" / key, ignore_errors=True)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold a step: another process that wants the same one waits here."""
        with locked(self.root / "locks" / key):
            yield

    def _tidy(self) -> None:
        """Remove what killed runs left in `work/` and nobody will ask for again."""
        with suppress(BlockingIOError), locked(self.root / "locks" / _PUTTING, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for staging in (self.root / "work").glob(f"{_STAGING}*"):
                shutil.rmtree(staging, ignore_errors=True)
        for folder in (self.root / "work").iterdir():
            if self._record_path(folder.name).exists():  # killed between its record and its tidying up
                with (
                    suppress(BlockingIOError),
                    locked(self.root / "locks" / folder.name, fcntl.LOCK_EX | fcntl.LOCK_NB),
                ):
                    self.discard_workspace(folder.name)


@contextmanager
def busy(work: Path) -> Iterator[None]:
    """Have a step's scratch folder for oneself.

    The child process of a killed run may live on for a moment; whoever does the step again waits for its end.
    """
    with locked(work / "busy"):
        yield
