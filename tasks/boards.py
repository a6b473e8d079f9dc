"""Stage: measure compiled files on boards, several boards side by side, each under its own limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture

from edgemill.artifact import Artifact
from edgemill.boards import BoardSettings
from edgemill.boards.inventory import Board
from edgemill.boards.record import board_call, measure_and_keep
from edgemill.data.dataset import SplitName
from edgemill.errors import EdgemillError, InvariantError, ToolchainError
from edgemill.execute import Call
from edgemill.recipe import Recipe
from edgemill.store import StepRecord
from edgemill.targets import Target
from tasks.progress import Progress, publish
from tasks.run import note, open_store, unvisited

_LOG_INTERVAL_S = 10.0
_SLOT_MARGIN_S = 600.0


@dataclass(frozen=True)
class OnBoard:
    """A measurement that is wanted.

    Attributes:
        board: where.
        target: of the board; decides the names of the figures.
        variant: the compiled file.
        baseline: the checkpoint as fp32 onnx.
        data: the dataset.
        subject: what it works on, for people.
        timed: whether it is compared with the baseline.
        answer: split whose samples the variant answers on the board.
    """

    board: Board
    target: Target
    variant: Artifact
    baseline: Artifact
    data: Artifact
    subject: str
    timed: bool = True
    answer: SplitName | None = None


@dataclass(frozen=True)
class FromBoards:
    """What came of measurements on boards.

    Attributes:
        records: in the order in which they were wanted; None where there is none.
        missing: by board why something of it is missing.
    """

    records: tuple[StepRecord | None, ...]
    missing: dict[str, EdgemillError] = field(default_factory=dict)


def measure_on_boards(wanted: Sequence[OnBoard], recipe: Recipe) -> FromBoards:
    """Measure on several boards at once. One that fails leaves the others' results as they are.

    Must be called inside a flow. Once a board cannot be reached, what else is wanted of it is still tried, because
    the reason may be the file.

    Args:
        wanted: what is to be measured where.
        recipe: how it is measured.
    """
    running: list[StepRecord | EdgemillError | PrefectFuture[StepRecord]] = []
    for item in wanted:
        try:
            call = _call(item, recipe)
            running.append(open_store().record(call.key) or _start(item, call))
        except EdgemillError as error:
            running.append(error)
    records: list[StepRecord | None] = []
    missing: dict[str, EdgemillError] = {}
    for item, found in zip(wanted, running, strict=True):
        told = _result(found) if isinstance(found, PrefectFuture) else found
        records.append(told if isinstance(told, StepRecord) else None)
        if isinstance(told, StepRecord):
            note(_label(item), told)
        if isinstance(told, EdgemillError):
            missing.setdefault(item.board.name, told)
    return FromBoards(tuple(records), missing)


def measure_on_board(item: OnBoard, recipe: Recipe) -> StepRecord:
    """Measure on one board, in this thread.

    Raises:
        EdgemillError: whatever kept the board from answering.
    """
    call = _call(item, recipe)
    label = _label(item)
    if (record := open_store().record(call.key)) is not None:
        publish(Progress(label, "cached", 1.0))
        note(label, record)
        return record
    _limit(item.board)
    record = _run.with_options(name=call.step.name, task_run_name=label)(unvisited(item.board), unvisited(call), label)
    note(label, record)
    return record


def limit_name(board: Board) -> str:
    """Name of the global concurrency limit of a board."""
    return f"board-{board.name}"


def _start(item: OnBoard, call: Call) -> PrefectFuture[StepRecord]:
    label = _label(item)
    _limit(item.board)
    configured = _run.with_options(name=call.step.name, task_run_name=label)
    future: PrefectFuture[StepRecord] = configured.submit(unvisited(item.board), unvisited(call), label)
    return future


def _call(item: OnBoard, recipe: Recipe) -> Call:
    settings = BoardSettings(
        target=item.target.essence.model_copy(update={"power": item.target.power}),
        benchmark=recipe.benchmark.model_copy(update={"sustained": None}),
        timed=item.timed,
        answer=item.answer,
    )
    return board_call(item.board, settings, {"variant": item.variant, "baseline": item.baseline, "data": item.data})


def _label(item: OnBoard) -> str:
    what = "" if item.answer is None else f"{item.answer} "
    return f"benchmark.board {what}{item.subject} on {item.board.name}"


def _limit(board: Board) -> None:
    """Have the limit of a board on the server; one that is not there would let everything pass."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(limit_name(board), board.concurrency)


def _result(future: PrefectFuture[StepRecord]) -> StepRecord | EdgemillError:
    found = future.result(raise_on_failure=False)
    if isinstance(found, (StepRecord, EdgemillError)):
        return found
    text = f"{type(found).__name__}: {found}"
    return InvariantError("A measurement on a board failed in a way that was not foreseen.", got=text[:300])


@task(cache_policy=NO_CACHE)
def _run(board: Board, call: Call, label: str) -> StepRecord:
    logger = get_run_logger()
    logged = time.monotonic()

    def report(fraction: float | None, message: str) -> None:
        nonlocal logged
        publish(Progress(label, "running", fraction, message))
        if message and time.monotonic() - logged > _LOG_INTERVAL_S:
            logged = time.monotonic()
            logger.info("%s%s", "" if fraction is None else f"{fraction:.0%} ", message)

    limit_s = board.wait_s + call.step.time_limit_s + _SLOT_MARGIN_S
    try:
        with concurrency(limit_name(board), strict=True, timeout_seconds=limit_s, raise_on_lease_renewal_failure=False):
            record = measure_and_keep(open_store(), board, call, report)
    except TimeoutError as error:
        publish(Progress(label, "failed", message="no slot"))
        raise ToolchainError(
            "The board's turn did not come.",
            where=f"concurrency limit {limit_name(board)}",
            expected=f"a free slot within {limit_s:.0f} s",
            remedy="`prefect global-concurrency-limit inspect` shows who holds it",
        ) from error
    except EdgemillError as error:
        publish(Progress(label, "failed", message=error.what))
        logger.error("%s", error)
        raise
    publish(Progress(label, "done", 1.0, wall_s=record.wall_s))
    logger.info("%.1f s on %s", record.wall_s, board.name)
    return record
