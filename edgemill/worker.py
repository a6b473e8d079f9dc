"""The child process in which step bodies run: `python -m edgemill.worker EVENTS_FD`.

Reads one JSON job per line from standard input, writes one JSON event per line to the descriptor
EVENTS_FD, and ends when standard input closes: between two jobs in order, in the middle of one at
once, because then its parent was killed. Whatever the body prints goes to the log file of the job.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from edgemill.artifact import Artifact, Signature
from edgemill.errors import EdgemillError, InvariantError
from edgemill.step import InputFile, Outputs, StepContext
from edgemill.store import busy, storage_error

_PROGRESS_INTERVAL_S = 0.2


class _Jobs:
    """The lines of standard input, read by a thread of its own that sees its end also during a job."""

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._busy = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._busy.set()
            self._lines.put(line)
        if self._busy.is_set():
            os._exit(1)
        self._lines.put(None)

    def __iter__(self) -> Iterator[str]:
        while (line := self._lines.get()) is not None:
            yield line

    def done(self) -> None:
        """The job that came last is answered."""
        self._busy.clear()


class _Events:
    """Writer of events; progress is thinned out so that a chatty body costs nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last_progress = 0.0

    def send(self, event: dict[str, Any]) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()

    def progress(self, fraction: float | None, message: str) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL_S:
            self._last_progress = now
            self.send({"event": "progress", "fraction": fraction, "message": message})


def _describe(outputs: Outputs) -> dict[str, Any]:
    files = {}
    for name, file in outputs.files.items():
        if not file.path.exists():
            raise InvariantError("A step declares an output that it did not write.", where=name, got=str(file.path))
        signature = file.signature.model_dump(mode="json") if isinstance(file.signature, Signature) else None
        files[name] = asdict(file) | {"path": str(file.path), "signature": signature, "facts": dict(file.facts)}
    return {"event": "done", "files": files, "facts": dict(outputs.facts)}


def _run(job: dict[str, Any], events: _Events) -> dict[str, Any]:
    module_name, _, function_name = job["body"].partition(":")
    for entry in job["search_path"]:
        if entry not in sys.path:
            sys.path.append(entry)  # last, so that nothing there can hide an installed module
    module = importlib.import_module(module_name)
    settings_module, _, settings_name = job["settings_type"].partition(":")
    settings = getattr(importlib.import_module(settings_module), settings_name).model_validate(job["settings"])
    inputs = {
        name: InputFile(Path(entry["path"]), Artifact.model_validate(entry["artifact"]))
        for name, entry in job["inputs"].items()
    }
    work = Path(job["work"])
    context = StepContext(out=work / "out", resume=work / "resume", seed=job["seed"], report=events.progress)
    return _describe(getattr(module, function_name)(settings, inputs, context))


def _crash(error: Exception) -> dict[str, Any]:
    return {"event": "crash", "error": f"{type(error).__name__}: {error}".strip().replace("\n", "; ")[:1000]}


def _answer(job: dict[str, Any], events: _Events) -> dict[str, Any]:
    log = os.open(Path(job["work"]) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        with busy(Path(job["work"])):
            return _run(job, events)
    except EdgemillError as error:
        traceback.print_exc()
        return {"event": "error", "error": error.to_dict()}
    except OSError as error:
        traceback.print_exc()
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            return {"event": "error", "error": storage_error(error, Path(job["work"])).to_dict()}
        return _crash(error)
    except Exception as error:
        traceback.print_exc()
        return _crash(error)


def main() -> None:
    """Serve jobs until standard input closes."""
    jobs = _Jobs()
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as stream:
        events = _Events(stream)
        for line in jobs:
            answer = _answer(json.loads(line), events)
            jobs.done()  # before the answer: once it is read, standard input may close
            events.send(answer)
            sys.stdout.flush()
            sys.stderr.flush()


if __name__ == "__main__":
    main()
