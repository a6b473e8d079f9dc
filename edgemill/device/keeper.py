"""The keeper: one measurement on a board, under a lease, for a client at the other end of a connection.

`python -m edgemill.device serve FOLDER PYTHON` reads from standard input a line with a `Request`, then the tar
archive of the job, then a line now and then by which the client shows that it is there. It writes one JSON object
a line: {event: waiting | leased | progress | error | done, ...}; `done` holds the signed result and is followed by
the bytes of the files that it names.

The lease goes on as long as both the client and the work show life, and never longer than `lease_s` without.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from edgemill.artifact import canonical_json, digest_path
from edgemill.device import lease as leases
from edgemill.device import signing
from edgemill.device.job import JOB, OUT, PROTOCOL
from edgemill.device.lease import Lease
from edgemill.device.request import Archive, GoneError, Request
from edgemill.device.watchdog import Watchdog
from edgemill.errors import EdgemillError, InvariantError, ToolchainError, error_from_dict

PACKAGES, WORK = "packages", "work"
"""In the board's folder: versions of Edgemill that were pushed, and the scratch of jobs."""

_KEPT_PACKAGES = 3
_GRACE_S = 2.0  # in which the keeper ends a silent work itself and can still say why
_POLL_S = 0.5
_TELL_S = 2.0
_BLOCK = 1 << 16
_TAIL_LINES = 6


class Keeper:
    """Serves one request."""

    def __init__(self, folder: Path, entry: BinaryIO, out: BinaryIO) -> None:
        """Take the ends of the connection.

        Args:
            folder: of the board: lease, key, packages, scratch.
            entry: from the client.
            out: to the client.
        """
        self._folder = folder
        self._entry = entry
        self._out = out
        self._client = leases.now()
        self._work = leases.now()

    def serve(self) -> None:
        """Do what is asked, and tell the client what comes of it."""
        with suppress(GoneError, BrokenPipeError):
            try:
                self._serve()
            except EdgemillError as error:
                self._send({"event": "error", "error": error.to_dict()})
            except (OSError, tarfile.TarError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                fault = ToolchainError(
                    "The board cannot write its files.",
                    where=str(self._folder),
                    got=" ".join(str(error).split())[:300],
                    remedy="free some space on the board, or set another `folder` in the inventory",
                )
                self._send({"event": "error", "error": fault.to_dict()})

    def _serve(self) -> None:
        try:
            request = Request.model_validate_json(self._entry.readline())
        except ValidationError as error:
            raise InvariantError("The board does not understand the request.", got=str(error)[:300]) from error
        if request.protocol != PROTOCOL:
            raise InvariantError("The board speaks another version.", expected=str(PROTOCOL), got=request.protocol)
        signing.public_key(self._folder)
        lease = self._take(request)
        work = self._folder / WORK / lease.id
        self._tidy(work)
        watchdog = Watchdog(self._folder, lease.id, work)
        try:
            self._client = self._work = leases.now()
            self._send({"event": "leased", "id": lease.id, "expires_at": lease.expires_at})
            started = datetime.now(UTC).isoformat(timespec="seconds")
            lease = self._unpack(request, lease, work)
            inputs = {entry.parent.name: digest_path(entry) for entry in sorted(work.glob("*/*"))}
            inputs |= {"job": digest_path(work / JOB)}
            told = self._run(request, lease, work)
            text = canonical_json(
                told
                | {
                    "protocol": PROTOCOL,
                    "board": request.board,
                    "nonce": request.nonce,
                    "lease": lease.id,
                    "inputs": inputs,
                    "package": Path(__file__).parents[2].name,
                    "files": {path.name: digest_path(path) for path in sorted((work / OUT).iterdir())},
                    "started_at": started,
                    "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            )
            self._hand_over(text, signing.sign(self._folder, text), sorted((work / OUT).iterdir()))
        finally:
            shutil.rmtree(work, ignore_errors=True)
            leases.release(self._folder, lease.id)
            watchdog.dismiss()

    def _take(self, request: Request) -> Lease:
        deadline = time.monotonic() + request.wait_s
        told = -_TELL_S
        while True:
            try:
                return leases.take(self._folder, request.owner, request.lease_s + _GRACE_S)
            except leases.HeldError as error:
                if time.monotonic() >= deadline:
                    raise ToolchainError(
                        "Somebody else has the board.",
                        where=request.board,
                        got=str(error),
                        expected=f"free within {request.wait_s:.0f} s",
                        remedy="run again later, or with a longer wait",
                    ) from None
                if time.monotonic() - told >= _TELL_S:
                    told = time.monotonic()
                    self._send({"event": "waiting", "message": f"waiting for the board: {error}"})
                time.sleep(min(_POLL_S, max(deadline - time.monotonic(), 0.0)))

    def _tidy(self, work: Path) -> None:
        """Remove the scratch of killed jobs and versions that were not used lately; nobody else works here now."""
        shutil.rmtree(work.parent, ignore_errors=True)
        work.mkdir(parents=True)
        packages = self._folder / PACKAGES
        with suppress(OSError):
            by_use = sorted(packages.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in by_use[_KEPT_PACKAGES:]:
                shutil.rmtree(path, ignore_errors=True)

    def _unpack(self, request: Request, lease: Lease, work: Path) -> Lease:
        """Receive the archive; the lease goes on while it comes in."""
        archive = Archive(self._entry, request.archive_bytes)

        def alive() -> None:
            nonlocal lease
            self._client = self._work = leases.now()
            lease = self._prolong(request, lease)

        archive.on_block = alive
        with tarfile.open(fileobj=archive, mode="r|", bufsize=_BLOCK) as entries:  # type: ignore[call-overload]
            if hasattr(tarfile, "data_filter"):
                entries.extractall(work, filter="data")
            else:
                entries.extractall(work)
        while archive.read(_BLOCK):
            pass
        return lease

    def _prolong(self, request: Request, lease: Lease, work: leases.Work | None = None) -> Lease:
        until = min(self._client, self._work) + request.lease_s + _GRACE_S
        if work is None and until - lease.expires_s < request.lease_s / 4:
            return lease
        return leases.prolong(self._folder, lease, max(until, lease.expires_s), work)

    def _run(self, request: Request, lease: Lease, work: Path) -> dict[str, Any]:
        """Run the measurement; what it tells as its result."""
        environment = os.environ | {"EDGEMILL_PYTHON": sys.executable}
        command = [sys.executable, "-m", "edgemill.device.bench", str(work), str(int(request.time_limit_s) + 1)]
        with (work / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            self._client = self._work = leases.now()
            lease = self._prolong(request, lease, leases.work_of(process.pid))
            return self._listen(request, lease, process, work)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()

    def _listen(self, request: Request, lease: Lease, process: subprocess.Popen[bytes], work: Path) -> dict[str, Any]:
        assert process.stdout is not None
        began = leases.now()
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._entry, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(timeout=_POLL_S):
                    block = os.read(key.fd, _BLOCK)
                    if key.fileobj is self._entry:
                        if not block:
                            raise GoneError
                        self._client = leases.now()
                        continue
                    if not block:
                        raise _death(process, work)
                    self._work = leases.now()
                    *lines, buffer = (buffer + block).split(b"\n")
                    for line in lines:
                        event: dict[str, Any] = json.loads(line)
                        if event["event"] == "result":
                            result: dict[str, Any] = event["result"]
                            return result
                        if event["event"] == "error":
                            raise error_from_dict(event["error"])
                        self._send(event)
                self._check(request, began)
                lease = self._prolong(request, lease)

    def _check(self, request: Request, began: float) -> None:
        moment = leases.now()
        if moment - began > request.time_limit_s:
            raise ToolchainError(
                "The work on the board ran past its time limit and was ended.",
                where=request.board,
                expected=f"at most {request.time_limit_s:.0f} s",
            )
        if moment - self._work > request.lease_s:
            raise ToolchainError(
                "The work on the board hangs and was ended; the board is free.",
                where=request.board,
                expected=f"a sign of life every {request.lease_s:.0f} s (lease_s)",
                got=f"none for {moment - self._work:.0f} s",
                remedy="run again; where one inference takes longer than that, set a longer lease_s in the inventory",
            )
        if moment - self._client > request.lease_s:
            raise GoneError

    def _hand_over(self, text: str, signature: str, files: list[Path]) -> None:
        sizes = {path.name: path.stat().st_size for path in files}
        self._send({"event": "done", "result": text, "signature": signature, "files": sizes})
        for path in files:
            with path.open("rb") as stream:
                shutil.copyfileobj(stream, self._out)
        self._out.flush()

    def _send(self, event: dict[str, Any]) -> None:
        self._out.write(json.dumps(event).encode() + b"\n")
        self._out.flush()


def _death(process: subprocess.Popen[bytes], work: Path) -> ToolchainError:
    try:
        status = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait()
    log = work / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    told = [line.strip() for line in lines if line.strip()][-_TAIL_LINES:]
    return ToolchainError(
        "The measurement on the board died.",
        got=f"exit status {status}" + (f"; last words: {' | '.join(told)}" if told else ""),
        remedy="a runtime that was not built for this CPU dies with -4 (SIGILL); one that lacks memory with -9",
    )
