"""Figures and answers from boards, for targets that have one: several boards side by side, before anything is
measured here."""

from __future__ import annotations

from collections.abc import Sequence

from edgemill.artifact import Artifact
from edgemill.boards.inventory import Board, boards_of, inventory_path
from edgemill.candidate import Model
from edgemill.data import SplitName
from edgemill.errors import EdgemillError
from edgemill.evidence import Arithmetic
from edgemill.recipe import Recipe
from edgemill.results import Attempt
from edgemill.store import StepRecord
from tasks.boards import OnBoard, measure_on_board, measure_on_boards


def measure_at_boards(attempts: Sequence[Attempt], checkpoint: Model, recipe: Recipe, data: Artifact) -> None:
    """Fill in what boards measured. Where one does not answer, the attempt says so and is measured here instead.

    Raises:
        RecipeError: the inventory of boards is not valid.
    """
    boards = _boards(attempts)
    wanted = [(item, board) for item in attempts if (board := _board(item, boards)) is not None]
    measurements = [_on_board(attempt, board, checkpoint, data) for attempt, board in wanted]
    told = measure_on_boards(measurements, recipe)
    for (attempt, board), record in zip(wanted, told.records, strict=True):
        if record is not None:
            attempt.measured = record
        else:
            _note_missing(attempt, "figures", board, told.missing[board.name])


def answer_at_board(
    attempt: Attempt, checkpoint: Model, recipe: Recipe, data: Artifact, split: SplitName
) -> StepRecord | None:
    """Answers of the board that measured an attempt; None where none did, or it does not answer now, which the
    attempt then says."""
    board = _board(attempt, _boards([attempt]))
    measured = {} if attempt.measured is None else attempt.measured.facts.get("board", {})
    if board is None or measured.get("name") != board.name:
        return None
    try:
        record = measure_on_board(_on_board(attempt, board, checkpoint, data, answer=split), recipe)
    except EdgemillError as error:
        _note_missing(attempt, "answers", board, error)
        return None
    known = attempt.arithmetic or Arithmetic(source=board.source)
    attempt.arithmetic = known.model_copy(update={"source": board.source, "note": ""})
    return record


def _boards(attempts: Sequence[Attempt]) -> dict[str, Board]:
    """The board of every target that has one."""
    if not inventory_path().exists():
        return {}
    return {name: found[0] for name in {item.target.name for item in attempts} if (found := boards_of(name))}


def _board(attempt: Attempt, boards: dict[str, Board]) -> Board | None:
    """The board that measures an attempt; None where there is none, or it is not worth it."""
    if attempt.file is None or not attempt.worth_measuring:
        return None
    return boards.get(attempt.target.name)


def _on_board(
    attempt: Attempt, board: Board, checkpoint: Model, data: Artifact, answer: SplitName | None = None
) -> OnBoard:
    assert attempt.file is not None
    onnx = checkpoint.files["onnx"]
    return OnBoard(board, attempt.target, attempt.file, onnx, data, attempt.subject, answer is None, answer)


def _note_missing(attempt: Attempt, what: str, board: Board, error: EdgemillError) -> None:
    reason = str(error).replace("\n  ", "; ")
    attempt.missing = (*attempt.missing, f"{what} of board {board.name}: {reason}")
