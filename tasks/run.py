"""What every task does: find a step done, or run it as a Prefect task and show its progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from edgemill.errors import EdgemillError
from edgemill.execute import Call, execute
from edgemill.ledger import Ledger
from edgemill.store import StepRecord, Store, state_folder
from tasks.progress import Progress, publish

T = TypeVar("T")
_LOG_INTERVAL_S = 10.0

# Two steps at a time keep two cores busy; measurements run alone in any case.
_SLOTS = threading.Semaphore(2)
_LEDGERS: list[Ledger] = []


@contextmanager
def noting(ledger: Ledger) -> Iterator[None]:
    """Note every step of a run in a ledger while the context lasts."""
    _LEDGERS.append(ledger)
    try:
        yield
    finally:
        _LEDGERS.remove(ledger)


def open_store() -> Store:
    """The store of this process' state folder."""
    return Store(state_folder())


def unvisited(value: T) -> T:
    """A value as a task parameter that Prefect takes as it is, instead of searching every field for futures."""
    return cast(T, quote(value))


def perform(call: Call, subject: str) -> StepRecord:
    """The record of a step: from the store, or from a Prefect task that runs it now.

    Only what really runs becomes a task run. A hundred task runs that have nothing to do would
    cost more than everything else in a run that finds all its steps done.

    Args:
        call: the step.
        subject: what it works on, for people.

    Raises:
        EdgemillError: whatever the step raised.
    """
    label = f"{call.step.name} {subject}"
    record = open_store().record(call.key)
    if record is not None:
        publish(Progress(label, "cached", 1.0))
    else:
        record = _run.with_options(name=call.step.name, task_run_name=label)(unvisited(call), label)
    note(label, record)
    return record


def note(label: str, record: StepRecord) -> None:
    """Enter a finished step into the ledgers of the runs that go on."""
    for ledger in tuple(_LEDGERS):
        ledger.note(label, record)


@task(cache_policy=NO_CACHE)
def _run(call: Call, label: str) -> StepRecord:
    logger = get_run_logger()
    logged = time.monotonic()

    def report(fraction: float | None, message: str) -> None:
        nonlocal logged
        publish(Progress(label, "running", fraction, message))
        if message and time.monotonic() - logged > _LOG_INTERVAL_S:
            logged = time.monotonic()
            logger.info("%s%s", "" if fraction is None else f"{fraction:.0%} ", message)

    try:
        execution = execute(open_store(), call, report, _SLOTS)
    except EdgemillError as error:
        publish(Progress(label, "failed", message=error.what))
        logger.error("%s", error)
        raise
    record = execution.record
    publish(Progress(label, "cached" if execution.cached else "done", 1.0, wall_s=record.wall_s))
    logger.info("%.1f s, %s", record.wall_s, ", ".join(artifact.digest for artifact in record.outputs.values()))
    return record
