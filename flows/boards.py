"""Figures from boards, for targets that have one: several boards side by side, before anything is measured here."""

from __future__ import annotations

from collections.abc import Sequence

from edgemill.artifact import Artifact
from edgemill.boards.inventory import Board, boards_of, inventory_path
from edgemill.candidate import Model
from edgemill.recipe import Recipe
from edgemill.results import Attempt
from tasks.boards import OnBoard, measure_on_boards


def measure_at_boards(attempts: Sequence[Attempt], checkpoint: Model, recipe: Recipe, data: Artifact) -> None:
    """Fill in what boards measured. Where one does not answer, the attempt says so and is measured here instead.

    Raises:
        RecipeError: the inventory of boards is not valid.
    """
    if not inventory_path().exists():
        return
    boards = {name: found[0] for name in {item.target.name for item in attempts} if (found := boards_of(name))}
    wanted = [(item, board) for item in attempts if (board := _board(item, boards)) is not None]
    onnx = checkpoint.files["onnx"]
    measurements = [
        OnBoard(board, attempt.target, attempt.file, onnx, data, attempt.subject)
        for attempt, board in wanted
        if attempt.file is not None
    ]
    told = measure_on_boards(measurements, recipe)
    for (attempt, board), record in zip(wanted, told.records, strict=True):
        if record is not None:
            attempt.measured = record
            continue
        reason = str(told.missing[board.name]).replace("\n  ", "; ")
        attempt.missing = (f"figures of board {board.name}: {reason}",)


def _board(attempt: Attempt, boards: dict[str, Board]) -> Board | None:
    """The board that measures an attempt; None where there is none, or it is not worth it."""
    if attempt.file is None or not attempt.worth_measuring:
        return None
    return boards.get(attempt.target.name)
