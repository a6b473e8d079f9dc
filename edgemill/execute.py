"""Run a step: answer from the store if it was done before, else in a child process with limits."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgemill.artifact import Artifact
from edgemill.benchmark.slots import exclusive, shared
from edgemill.children import Pool, Worker
from edgemill.errors import EdgemillError, InvariantError, ToolchainError, error_from_dict
from edgemill.step import Step, cache_key, tool_versions
from edgemill.store import StepRecord, Store
from edgemill.toolchains import load_toolchain

Report = Callable[[float | None, str], None]

_POLL_S = 0.5


@dataclass(frozen=True)
class Execution:
    """A finished step, and whether it was answered from the store."""

    record: StepRecord
    cached: bool


@dataclass(frozen=True)
class Call:
    """A step with everything that decides its result.

    Attributes:
        extra: further identities in the cache key, e.g. of the target or the measuring host.
        search_path: folders in which the recipe's own python functions are found.
        toolchain: whose environment the step runs in; None: Edgemill's own.
    """

    step: Step
    settings: BaseModel
    inputs: Mapping[str, Artifact]
    seed: int = 0
    extra: Mapping[str, str] | None = None
    search_path: tuple[str, ...] = ()
    toolchain: str | None = None

    @property
    def tools(self) -> dict[str, str]:
        """Version of every tool of the step where it runs."""
        if self.toolchain is None:
            return tool_versions(self.step.tools)
        return load_toolchain(self.toolchain).versions(self.step.tools)

    @property
    def identities(self) -> dict[str, str]:
        """`extra` and the toolchain."""
        own = {} if self.toolchain is None else {"toolchain": load_toolchain(self.toolchain).digest}
        return dict(self.extra or {}) | own

    @property
    def key(self) -> str:
        """Cache key (design rule 6)."""
        digests = {name: artifact.digest for name, artifact in self.inputs.items()}
        settings = self.settings.model_dump(mode="json")
        return cache_key(self.step, settings, digests, self.seed, self.identities, self.tools)


def execute(store: Store, call: Call, report: Report, slots: AbstractContextManager[Any] | None = None) -> Execution:
    """Run a step, or find it done.

    Args:
        report: told of progress.
        slots: held while the step runs, e.g. a semaphore that limits how many run at once. Waiting
            for another run of the same step does not take one.

    Raises:
        EdgemillError: whatever the body raised on purpose.
        ToolchainError: the child process died or went over a limit.
    """
    key = call.key
    if (record := store.record(key)) is not None:
        return Execution(record, cached=True)
    with store.lock(key):
        if (record := store.record(key)) is not None:
            return Execution(record, cached=True)
        slot = exclusive if call.step.exclusive else shared
        with slots or nullcontext(), slot(report):
            return Execution(_run(store, call, key, report), cached=False)


def _run(store: Store, call: Call, key: str, report: Report) -> StepRecord:
    step = call.step
    work = store.workspace(key)
    settings = call.settings.model_dump(mode="json")
    started = time.monotonic()
    answer = _converse(
        step,
        call.toolchain,
        {
            "body": step.body,
            "settings_type": f"{type(call.settings).__module__}:{type(call.settings).__qualname__}",
            "settings": settings,
            "inputs": {
                name: {"path": str(store.path(artifact)), "artifact": artifact.model_dump(mode="json")}
                for name, artifact in call.inputs.items()
            },
            "work": str(work),
            "seed": call.seed,
            "search_path": list(call.search_path),
        },
        report,
    )
    parents = tuple(sorted({artifact.digest for artifact in call.inputs.values()}))
    outputs = {
        name: store.put(
            Path(file["path"]),
            kind=file["kind"],
            step=step.name,
            parents=parents,
            signature=file["signature"],
            facts=file["facts"],
        )
        for name, file in answer["files"].items()
    }
    record = StepRecord(
        key=key,
        step=step.name,
        version=step.version,
        settings=settings,
        inputs={name: artifact.digest for name, artifact in call.inputs.items()},
        outputs=outputs,
        facts=answer["facts"],
        tools=call.tools,
        seed=call.seed,
        extra=call.identities,
        varies=step.varies,
        wall_s=round(time.monotonic() - started, 3),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.commit(record)
    store.discard_workspace(key)
    return record


# -- child processes -----------------------------------------------------------------------------

_POOL = Pool()


def release_workers() -> None:
    """End idle child processes, e.g. before measurements or at the end of a run."""
    _POOL.drain()


def _converse(step: Step, toolchain: str | None, job: Mapping[str, Any], report: Report) -> dict[str, Any]:
    if step.exclusive:
        _POOL.drain()
    worker = _POOL.take(step, toolchain)
    log = Path(job["work"]) / "log.txt"
    try:
        try:
            worker.send(job)
        except BrokenPipeError:
            raise _death(step, worker, log) from None
        answer = _listen(step, worker, report, log)
    except BaseException:
        worker.kill()
        raise
    _POOL.give_back(worker, step)
    if answer["event"] == "error":
        raise error_from_dict(answer["error"])
    if answer["event"] == "crash":
        raise InvariantError(
            f"Step {step.name} failed in a way that Edgemill did not foresee.",
            where=str(log),
            got=answer["error"],
            remedy="please report this with the log; a smaller recipe may avoid the failing part",
        )
    return answer


def _listen(step: Step, worker: Worker, report: Report, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + step.time_limit_s
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(worker.events, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=_POLL_S):
                block = os.read(worker.events.fileno(), 1 << 16)
                if not block:
                    raise _death(step, worker, log)
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    event: dict[str, Any] = json.loads(line)
                    if event["event"] != "progress":
                        return event
                    report(event["fraction"], event["message"])
            if time.monotonic() > deadline:
                raise ToolchainError(
                    f"Step {step.name} ran past its time limit and was stopped.",
                    where=str(log),
                    expected=f"at most {step.time_limit_s:.0f} s",
                )
            if (resident := worker.resident_bytes()) > step.memory_limit_bytes:
                raise ToolchainError(
                    f"Step {step.name} went over its memory limit and was stopped.",
                    where=str(log),
                    expected=f"at most {step.memory_limit_bytes >> 20} MiB",
                    got=f"{resident >> 20} MiB",
                    remedy="smaller batches, or a machine with more memory",
                )


def _death(step: Step, worker: Worker, log: Path) -> EdgemillError:
    status = worker.process.wait()
    tail = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
    return ToolchainError(
        f"The process of step {step.name} died.",
        where=str(log),
        got=f"exit status {status}" + ("; last words: " + " | ".join(tail) if tail else ""),
        remedy="run again: it goes on from the last finished step",
    )
