"""Ask a board for a measurement: look at it, bring it what it lacks of Edgemill, converse, check the signature."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.boards import BOARD, BoardSettings
from edgemill.boards.contact import prepare, start
from edgemill.boards.inventory import Board, keep_signer
from edgemill.boards.session import Answer, Report, converse
from edgemill.boards.ssh import call, title
from edgemill.data.dataset import MANIFEST, Dataset, SplitName
from edgemill.device.job import Job, Part
from edgemill.errors import RecipeError, ToolchainError
from edgemill.step import InputFile
from edgemill.targets.catalog import load_target


def measure(
    board: Board, settings: BoardSettings, inputs: Mapping[str, InputFile], out: Path, report: Report
) -> Answer:
    """Measure a variant on a board that answers over SSH.

    Args:
        board: enrolled.
        settings: what is measured how.
        inputs: `variant`, `baseline` (fp32 onnx) and `data`, a dataset.
        out: empty folder for the files that come back.
        report: told of progress.

    Raises:
        EdgemillError: whatever kept the board from answering; its text says what to do.
    """
    if board.signer is None:
        raise RecipeError(
            "The board is not enrolled: nobody could tell whether a result is its own.",
            where=title(board),
            remedy=f"edgemill device enroll {board.name}",
        )
    kinds = dict.fromkeys(inputs[name].artifact.kind for name in ("variant", "baseline"))
    report(None, f"looking at {board.name}")
    ready = prepare(board, settings.target, kinds)
    with tempfile.TemporaryDirectory(prefix="edgemill-") as name:
        data = needed_samples(inputs["data"].path, settings, Path(name) / "data")
        files = {name: inputs[name].path for name in ("variant", "baseline")}
        job = Job(
            target=settings.target,
            benchmark=settings.benchmark,
            confidence=settings.confidence,
            variant=Part(kind=inputs["variant"].artifact.kind, filename=files["variant"].name),
            baseline=Part(kind=inputs["baseline"].artifact.kind, filename=files["baseline"].name),
            timed=settings.timed,
            answer=settings.answer,
        )
        return converse(board, job, files | {"data": data}, ready.package, out, BOARD.time_limit_s, report)


def enroll(board: Board, path: Path | None = None) -> Board:
    """Have a board make its key, if it has none, and write the public part into the inventory.

    Args:
        board: with an SSH address.
        path: of the inventory; None: the usual one.

    Raises:
        RecipeError: the board is at a serial line, or the inventory has another key for it.
        ToolchainError: it cannot be reached, does not fit its target, or lacks something.
    """
    if board.ssh is None:
        raise RecipeError("A board at a serial line has no key; the line itself vouches for it.", where=title(board))
    prepare(board, load_target(board.target), ())
    told = call(board, start(board, "enroll")).decode(errors="replace").split()
    if len(told) != 2:  # type and key
        raise ToolchainError("The board does not give its key.", where=title(board), got=" ".join(told)[:200])
    return keep_signer(board.name, " ".join(told), path)


def needed_samples(source: Path, settings: BoardSettings, folder: Path) -> Path:
    """A dataset with those samples only that a measurement takes, without labels.

    Args:
        source: a dataset.
        settings: whose batches and split to answer decide.
        folder: to be made.

    Returns:
        `folder`.
    """
    data = Dataset(source)
    folder.mkdir()
    counts = {str(SplitName.VALIDATION): max((settings.benchmark.batch, *settings.benchmark.batches))}
    if settings.answer is not None:
        counts[str(settings.answer)] = data.sizes[str(settings.answer)]
    sizes = dict.fromkeys(data.sizes, 0)
    for name, count in counts.items():
        stored = np.array(data.raw(SplitName(name))[:count])
        np.save(folder / f"x_{name}.npy", stored, allow_pickle=False)
        sizes[name] = len(stored)
    manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text(encoding="utf-8"))
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sizes": sizes}, sort_keys=True), encoding="utf-8")
    return folder
