"""Child processes that run step bodies, and the pool in which they wait for the next step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from edgemill.errors import ToolchainError
from edgemill.guard import MARK, sweep, watch
from edgemill.lack import commands
from edgemill.step import Step
from edgemill.toolchains import installed

_IDLE_LIMIT_BYTES = 4 << 30
_STEPS_PER_WORKER = 25
_NUMBERS = count(1)


class Worker:
    """One child process and the pipe on which it reports."""

    def __init__(self, toolchain: str | None = None) -> None:
        """Start it.

        Args:
            toolchain: in whose environment; None: Edgemill's own.

        Raises:
            ToolchainError: the toolchain is not installed.
        """
        python, path = _environment(toolchain)
        read, write = os.pipe()
        watched = watch()
        self._mark = f"{watched.mark}/{next(_NUMBERS)}/"
        self.process = subprocess.Popen(
            [python, "-m", "edgemill.worker", str(write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write,),
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(path),
                "TF_USE_LEGACY_KERAS": "1",  # whatever imports TensorFlow first, it gets Keras 2
                "PYTHONHASHSEED": "0",  # libraries walk over sets of names: always in the same order
                "TMPDIR": str(watched.temporary),  # what a killed step leaves there is removed
                MARK: self._mark,
            },
        )
        os.close(write)
        self.events = os.fdopen(read, "rb", buffering=0)
        self.toolchain = toolchain
        self.steps = 0

    def send(self, job: Mapping[str, Any]) -> None:
        """Give it a job.

        Raises:
            BrokenPipeError: it is dead.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()

    def resident_bytes(self) -> int:
        """Memory of it and of everything it has started."""
        try:
            root = psutil.Process(self.process.pid)
            return sum(child.memory_info().rss for child in (root, *root.children(recursive=True)))
        except psutil.Error:
            return 0

    def kill(self) -> None:
        """End it and whatever it has started, also when it has died itself and left that behind."""
        self.process.kill()
        sweep(self._mark)
        self.process.wait()
        self.close()

    def close(self) -> None:
        """End the process in an orderly way: it leaves when its standard input closes."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.events.close()


def _environment(toolchain: str | None) -> tuple[str, list[str]]:
    """Interpreter and module search path of a child."""
    package = Path(__file__).resolve().parent
    if toolchain is None:
        inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        return sys.executable, [str(package.parent), *inherited]
    found = installed(toolchain)
    if lacks := found.lacks:
        got, remedy = "; ".join(lack.what for lack in lacks), " && ".join(commands(lacks))
        raise ToolchainError(f"Toolchain {toolchain} cannot be used.", got=got, remedy=remedy)
    # Edgemill alone, not what is installed beside it, which would hide the environment's own versions
    alone = watch().temporary / "edgemill-alone"
    alone.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (alone / package.name).symlink_to(package)
    return str(found.python), [str(alone)]


class Pool:
    """Idle workers by framework and toolchain, so that imports are paid once and not per step.

    A measurement gets a process of its own: what ran before must not colour its figures.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str | None, str | None], list[Worker]] = {}

    def take(self, step: Step, toolchain: str | None = None) -> Worker:
        """An idle worker that fits the step, or a new one.

        Raises:
            ToolchainError: the toolchain is not installed.
        """
        idle = self._idle.setdefault((step.framework, toolchain), [])
        with self._lock:
            while idle and not step.exclusive:
                worker = idle.pop()
                if worker.process.poll() is None:
                    return worker
                worker.close()
        return Worker(toolchain)

    def give_back(self, worker: Worker, step: Step) -> None:
        """Keep a worker for the next step, or let it go."""
        worker.steps += 1
        worn = worker.steps >= _STEPS_PER_WORKER or worker.resident_bytes() > _IDLE_LIMIT_BYTES
        if step.exclusive or worn:
            worker.close()
            worker.process.wait()
            return
        with self._lock:
            self._idle.setdefault((step.framework, worker.toolchain), []).append(worker)

    def drain(self) -> None:
        """Let every idle worker go."""
        with self._lock:
            for workers in self._idle.values():
                while workers:
                    workers.pop().close()
