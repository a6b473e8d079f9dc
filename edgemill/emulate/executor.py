"""Run models in an emulated CPU: one warm guest process for each, requests over pipes."""

from __future__ import annotations

import atexit
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

import edgemill
from edgemill.artifact import Frozen
from edgemill.emulate.host import this_host
from edgemill.emulate.machine import emulation_lacks, emulator_lack
from edgemill.emulate.places import Sysroot, read_sysroot
from edgemill.emulate.protocol import PROTOCOL
from edgemill.emulate.trace import Tensors
from edgemill.errors import EdgemillError, InvariantError, ToolchainError, error_from_dict
from edgemill.lack import commands
from edgemill.targets.spec import Emulation

START_LIMIT_S = 300.0
REQUEST_LIMIT_S = 900.0

_PARTS = {"cortex-a53": "0xd03", "cortex-a57": "0xd07", "cortex-a72": "0xd08", "cortex-a76": "0xd0b",
          "neoverse-n1": "0xd0c"}  # fmt: skip
"""Main ID register's part number of the ARM CPUs that are emulated (ARM, technical reference manuals)."""

# qemu names every feature of -cpu that it does not emulate, none of which concerns arithmetic
_NOISE = "TCG doesn't support requested feature"
_TAIL_LINES = 6


class Hello(Frozen):
    """How a guest introduces itself."""

    protocol: int
    machine: str
    python: str
    features: tuple[str, ...]
    versions: dict[str, str]


class Guest:
    """A Python process in an emulator. Not for use by several threads at once without its own lock, which it has.

    The process ends with `close`, with the garbage collector, and when this process ends in any way.
    """

    def __init__(self, emulation: Emulation, sysroot: Sysroot | None = None) -> None:
        """Start the process and wait until its runtimes are imported.

        Args:
            emulation: which CPU.
            sysroot: of its architecture; None: the one of this machine, where one is needed at all.

        Raises:
            ToolchainError: emulator or sysroot is missing, or the process dies at once.
        """
        self.emulation = emulation
        self._lock = threading.Lock()
        self._requests = 0
        self._folder = Path(tempfile.mkdtemp(prefix="edgemill-guest-"))
        self._log = self._folder / "log.txt"
        self._buffer = b""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            command, environment = _command(emulation, sysroot, self._folder)
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, bufsize=0
                )
            self.hello = self._introduce()
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def predict(
        self, path: Path, kind: str, x: NDArray[np.float32], exact: bool = False, threads: int = 1
    ) -> NDArray[np.float32]:
        """Answer samples, one at a time as a device does; see `LoadedModel.predict`.

        Raises:
            EdgemillError: as the runtime's adapter raised it inside the guest.
            ToolchainError: the guest died, or did not answer within the limit; it is gone then.
        """
        with self._lock:
            files = self._folder / "x.npy", self._folder / "out.npy"
            np.save(files[0], x)
            self._ask("predict", REQUEST_LIMIT_S, **_job(path, kind, exact, threads, *files))
            answer: NDArray[np.float32] = np.load(files[1])
            return answer

    def trace(self, path: Path, kind: str, x: NDArray[np.float32], exact: bool = False, threads: int = 1) -> Tensors:
        """Intermediate tensors; see `edgemill.emulate.trace.trace`, and `predict` for what it raises."""
        with self._lock, tempfile.TemporaryDirectory(dir=self._folder) as name:
            entry, out = self._folder / "x.npy", Path(name)
            np.save(entry, x)
            names = self._ask("trace", REQUEST_LIMIT_S, **_job(path, kind, exact, threads, entry, out))["names"]
            return {title: np.load(out / f"{index}.npy") for index, title in enumerate(names)}

    def close(self) -> None:
        """End the process and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _introduce(self) -> Hello:
        told = self._ask("hello", START_LIMIT_S)
        try:
            hello = Hello.model_validate(told)
        except ValidationError as error:
            raise InvariantError("The guest speaks another language.", got=str(told)[:300]) from error
        if hello.protocol != PROTOCOL:
            raise InvariantError("The guest speaks another version.", expected=str(PROTOCOL), got=str(hello.protocol))
        return hello

    def _ask(self, operation: str, limit_s: float, **fields: Any) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None:
            raise ToolchainError("The guest is closed.", where=self._title)
        self._requests += 1
        request = {"id": self._requests, "op": operation} | fields
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._death() from None
        answer = json.loads(self._line(limit_s))
        if answer["id"] != self._requests:
            raise InvariantError("The guest answers another request.", expected=str(self._requests), got=answer["id"])
        if "error" in answer:
            raise error_from_dict(answer["error"])
        told: dict[str, Any] = answer["ok"]
        return told

    def _line(self, limit_s: float) -> bytes:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(timeout=max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise ToolchainError(
                        "The emulated model did not answer in time.",
                        where=self._title,
                        expected=f"within {limit_s:.0f} s",
                        remedy="fewer samples; emulation is 100 to 1000 times slower than the device",
                    )
                block = os.read(process.stdout.fileno(), 1 << 16)
                if not block:
                    raise self._death()
                self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _death(self) -> EdgemillError:
        process = self._process
        assert process is not None
        try:
            status = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        told = [line.strip() for line in lines if line.strip() and _NOISE not in line][-_TAIL_LINES:]
        self.close()
        return ToolchainError(
            "The process in the emulator died.",
            where=self._title,
            got=f"exit status {status}" + (f"; last words: {' | '.join(told)}" if told else ""),
            remedy="this is a fault of the emulator or of the runtime in it; the target's own hardware may run it",
        )

    @property
    def _title(self) -> str:
        return f"{self.emulation.emulator} -cpu {self.emulation.cpu}"


def _job(path: Path, kind: str, exact: bool, threads: int, entry: Path, out: Path) -> dict[str, Any]:
    where = {"model": str(path.absolute()), "x": str(entry), "out": str(out)}
    return {"kind": kind, "exact": exact, "threads": threads, **where}


def _command(emulation: Emulation, sysroot: Sysroot | None, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a guest; `folder` gets what the emulator needs."""
    lacks = [] if sysroot is not None else emulation_lacks(emulation)
    emulator = shutil.which(emulation.emulator)
    if lacks or emulator is None:
        raise ToolchainError(
            "The target's CPU cannot be emulated here.",
            where=f"{emulation.emulator} -cpu {emulation.cpu}",
            got="; ".join(lack.what for lack in lacks) or f"no {emulation.emulator} on the PATH",
            remedy=" && ".join(commands(lacks or [emulator_lack(emulation.emulator)])),
        )
    own = folder / "py"
    own.mkdir()
    (own / "edgemill").symlink_to(Path(edgemill.__file__).resolve().parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LD_", "QEMU_", "PYTHON"))}
    start = ["-m", "edgemill.emulate.guest", "--folder", str(folder)]
    if emulation.arch == this_host().arch and sysroot is None:
        path = os.pathsep.join([str(own), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
        return [emulator, "-cpu", emulation.cpu, sys.executable, *start], kept | {"PYTHONPATH": path}
    found = sysroot or read_sysroot(emulation.arch)
    assert found is not None
    assert found.manifest is not None
    part = _PARTS.get(emulation.cpu)
    if part is None:
        raise InvariantError("This CPU has no entry.", where="_PARTS", got=emulation.cpu, expected=", ".join(_PARTS))
    # The emulator looks for absolute paths below its prefix first: the sysroot, and a /proc/cpuinfo of this CPU.
    prefix = folder / "prefix"
    (prefix / "proc").mkdir(parents=True)
    for entry in (found.folder / "root").iterdir():
        (prefix / entry.name).symlink_to(entry.resolve())
    python = found.folder.resolve() / "root" / "usr" / "bin" / f"python{found.manifest.python}"
    # without `site`: it would find the host's /usr/lib/python3/dist-packages
    command = [emulator, "-L", str(prefix), "-cpu", emulation.cpu, str(python), "-s", "-S", *start]
    command += ["--cpuinfo", str(prefix / "proc" / "cpuinfo"), "--part", part]
    return command, kept | {"PYTHONPATH": os.pathsep.join([str(found.folder.resolve() / "site"), str(own)])}


_GUESTS: dict[Emulation, Guest] = {}
_GUESTS_LOCK = threading.Lock()


def guest_of(emulation: Emulation) -> Guest:
    """The warm guest of this process for a CPU; started where there is none or it has died.

    Raises:
        ToolchainError: it cannot be started.
    """
    with _GUESTS_LOCK:
        guest = _GUESTS.get(emulation)
        if guest is None or not guest.alive:
            guest = _GUESTS[emulation] = Guest(emulation)
        return guest


@atexit.register
def release_guests() -> None:
    """End all warm guests."""
    with _GUESTS_LOCK:
        while _GUESTS:
            _GUESTS.popitem()[1].close()
