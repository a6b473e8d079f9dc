"""All files of a checkpoint together, for a checkpoint that is more than the one file its path names."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgemill.errors import CheckpointError
from edgemill.ingest.detect import Format, detect
from edgemill.ingest.wire import TruncatedError, external_locations


@contextmanager
def checkpoint_files(path: Path, max_bytes: int) -> Iterator[Path]:
    """The file or folder that holds everything of a checkpoint.

    That is the path itself, or, for a TensorFlow checkpoint prefix and for ONNX with external data,
    a temporary folder with copies of the files that belong to it and nothing else.

    Raises:
        CheckpointError: it is no checkpoint, a file is missing or lies outside its folder, or all
            together have more than `max_bytes`.
    """
    form = detect(path)
    if path.is_dir():
        files = [item for item in path.rglob("*") if item.is_file()]
    elif form is Format.TF_CHECKPOINT:
        files = sorted(path.parent.glob(f"{path.name}.*"))
    elif form is Format.ONNX:
        files = [path, *(require_inside(path, location) for location in _locations(path))]
    else:
        files = [path]
    total = sum(item.stat().st_size for item in files)
    if total > max_bytes:
        raise CheckpointError(
            "The checkpoint is too large.",
            where=str(path),
            expected=f"at most {max_bytes:,} bytes",
            got=f"{total:,} bytes",
            remedy="raise checkpoint.max_bytes if this is the right file",
        )
    if path.is_dir() or files == [path]:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgemill-") as folder:
        for item in files:
            copy = Path(folder) / item.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item, copy)
        yield Path(folder)


def _locations(path: Path) -> list[str]:
    try:
        return external_locations(path)
    except TruncatedError as error:
        raise CheckpointError(
            "The ONNX file is truncated or damaged.", where=str(path), got=str(error), remedy="copy or export it again"
        ) from error


def require_inside(model: Path, location: str) -> Path:
    """The file with external data of an ONNX model.

    Raises:
        CheckpointError: it is not a plain file in the model's folder or below.
    """
    folder = model.parent.resolve()
    file = folder / location
    if Path(location).is_absolute() or not file.resolve().is_relative_to(folder) or file.is_symlink():
        raise CheckpointError(
            "The ONNX file names external data outside its folder.",
            where=str(model),
            expected="a relative path of a plain file beside the model",
            got=location,
            remedy="save the model with its data beside it",
        )
    if not file.is_file():
        raise CheckpointError(
            "A file with external data of the ONNX model is missing.",
            where=str(model),
            got=f"no {location}",
            remedy="copy it beside the model",
        )
    return model.parent / location
