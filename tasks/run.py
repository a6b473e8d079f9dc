"""What every task does: run one step of the library, show its progress, keep its failure readable."""

from __future__ import annotations

import threading

from prefect import get_run_logger
from prefect.exceptions import MissingContextError
from prefect.states import Completed, State

from edgemill.errors import EdgemillError
from edgemill.execute import Call, Execution, execute
from edgemill.store import StepRecord, Store, state_folder
from tasks.progress import Progress, publish

# Two steps at a time keep two cores busy; measurements run alone in any case.
_HEAVY = threading.Semaphore(2)


def open_store() -> Store:
    """The store of this process' state folder."""
    return Store(state_folder())


def run_step(call: Call, subject: str) -> Execution:
    """Run a step or find it done, and publish its progress.

    Args:
        subject: what the step works on, for people.

    Raises:
        EdgemillError: whatever the step raised.
    """
    label = f"{call.step.name} {subject}".strip()

    def report(fraction: float | None, message: str) -> None:
        publish(Progress(label, "running", fraction, message))

    try:
        store = open_store()
        if (record := store.record(call.key)) is not None:
            execution = Execution(record, cached=True)
        else:
            with _HEAVY:
                report(None, "")
                execution = execute(store, call, report)
    except EdgemillError as error:
        publish(Progress(label, "failed", message=error.what))
        _log(f"{label}: {error}", failed=True)
        raise
    state = "cached" if execution.cached else "done"
    publish(Progress(label, state, 1.0, wall_s=None if execution.cached else execution.record.wall_s))
    _log(f"{label}: {'found in the store' if execution.cached else f'{execution.record.wall_s:.1f} s'}")
    return execution


def finished(execution: Execution) -> State[StepRecord]:
    """The Prefect state of a task that ran one step: `Cached` where the store had the answer."""
    return Completed(data=execution.record, name="Cached" if execution.cached else "Completed")


def _log(text: str, *, failed: bool = False) -> None:
    try:
        logger = get_run_logger()
    except MissingContextError:
        return
    (logger.error if failed else logger.info)(text)
