"""One measurement over one connection: the job goes there, signs of life both ways, the signed result comes back."""

from __future__ import annotations

import getpass
import json
import os
import platform
import secrets
import selectors
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import Field, ValidationError

from edgemill.artifact import Frozen, digest_path
from edgemill.boards.contact import start
from edgemill.boards.inventory import Board
from edgemill.boards.signature import verify
from edgemill.boards.ssh import environment, failure, ssh_command, title
from edgemill.device.job import JOB, PROTOCOL, Job, place
from edgemill.device.request import Request
from edgemill.errors import EdgemillError, ToolchainError, error_from_dict

Report = Callable[[float | None, str], None]

_SILENCE_MARGIN_S = 10.0
_END_S = 10.0
_HANG_UP_S = 1.0
_BLOCK = 1 << 16
_LINE_LIMIT = 64 << 20


class Signed(Frozen):
    """A result as the board signed it; the fields of its text."""

    protocol: int
    board: str
    nonce: str
    lease: str
    inputs: dict[str, str] = Field(description="SHA-256 of what was measured by its name, as it was on the board")
    package: str = Field(description="digest of the version of Edgemill that measured")
    files: dict[str, str] = Field(description="SHA-256 of the files that came with it")
    started_at: str = Field(description="by the board's clock")
    finished_at: str
    facts: dict[str, Any]
    host: dict[str, Any] = Field(description="fingerprint of the board")
    before: dict[str, Any] = Field(description="conditions before the comparison")
    after: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What came back from a board.

    Attributes:
        signed: the result.
        text: what the signature is of.
        signature: of the text, by the board's key.
        files: by name.
    """

    signed: Signed
    text: str
    signature: str
    files: Mapping[str, Path]


def converse(
    board: Board, job: Job, inputs: Mapping[str, Path], package: str, out: Path, time_limit_s: float, report: Report
) -> Answer:
    """Let a board do a job.

    Args:
        board: enrolled, with Edgemill's package on it.
        job: what is asked.
        inputs: files and folders by `variant`, `baseline` and `data`.
        package: digest of the package that is on the board.
        out: empty folder for what comes back.
        time_limit_s: of the work on the board.
        report: told of progress.

    Raises:
        EdgemillError: as the board raised it.
        ToolchainError: the connection was lost, the board is held by another or silent, or the result is not
            the signed answer to this very question.
    """
    with tempfile.TemporaryDirectory(prefix="edgemill-") as name:
        archive = _pack(Path(name), job, inputs)
        expected = {part: digest_path(path) for part, path in inputs.items()} | {"job": digest_path(Path(name) / JOB)}
        request = Request(
            protocol=PROTOCOL,
            board=board.name,
            owner=f"{_user()}@{platform.node()} process {os.getpid()}",
            nonce=secrets.token_hex(16),
            lease_s=board.lease_s,
            wait_s=board.wait_s,
            time_limit_s=time_limit_s,
            archive_bytes=archive.stat().st_size,
        )
        done, files = _Connection(board, request, archive, out, report).run()
    assert board.signer is not None
    verify(board.name, board.signer, done["result"], done["signature"])
    try:
        signed = Signed.model_validate_json(done["result"])
    except ValidationError as error:
        raise ToolchainError(
            "The board's result is not complete.", where=title(board), got=" ".join(str(error).split())[:300]
        ) from error
    _check(board, signed, request, package, expected, files)
    return Answer(signed, done["result"], done["signature"], files)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name
        return f"user {os.getuid()}"


def _check(
    board: Board,
    signed: Signed,
    request: Request,
    package: str,
    inputs: Mapping[str, str],
    files: Mapping[str, Path],
) -> None:
    """Refuse a signed result that is an answer to something else."""
    wanted = {"board": board.name, "nonce": request.nonce, "package": package, "inputs": dict(inputs)}
    wanted["files"] = {name: digest_path(path) for name, path in files.items()}
    for what, value in wanted.items():
        if (got := getattr(signed, what)) != value:
            raise ToolchainError(
                "The board's signed result is of something else than what was asked.",
                where=f"{title(board)}, {what}",
                expected=str(value)[:200],
                got=str(got)[:200],
                remedy="run again; if it stays so, something between here and the board changes what it carries",
            )


def _pack(folder: Path, job: Job, inputs: Mapping[str, Path]) -> Path:
    (folder / JOB).write_text(job.model_dump_json(), encoding="utf-8")
    names = {"variant": job.variant.filename, "baseline": job.baseline.filename, "data": "data"}
    archive = folder / "job.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(folder / JOB, JOB, filter=_plain)
        for name, path in inputs.items():
            tar.add(path, str(place(Path(), name, names[name])), filter=_plain)
    return archive


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without owner, times, and rights that would keep the board from removing it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    return entry


class _Connection:
    """The SSH client with a request at work."""

    def __init__(self, board: Board, request: Request, archive: Path, out: Path, report: Report) -> None:
        self._board = board
        self._request = request
        self._archive = archive
        self._out = out
        self._report = report
        self._over = threading.Event()
        self._buffer = b""
        self._heard = time.monotonic()

    def run(self) -> tuple[dict[str, Any], dict[str, Path]]:
        """The event `done`, and the files that came with it."""
        with tempfile.TemporaryFile() as told:
            process = subprocess.Popen(
                ssh_command(self._board, start(self._board, "serve")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=told,
                env=environment(),
                bufsize=0,
                start_new_session=True,
            )
            assert process.stdin is not None
            speaker = threading.Thread(target=self._speak, args=(process.stdin,), daemon=True)
            speaker.start()
            patience_s = _HANG_UP_S
            try:
                answer = self._listen(process)
                patience_s = _END_S  # it still gives the lease back
                return answer
            except _EndedError:
                status = process.wait()
                told.seek(0)
                raise failure(self._board, status, told.read().decode(errors="replace")) from None
            finally:
                self._over.set()
                self._leave(process, patience_s)
                speaker.join(_END_S)

    def _speak(self, pipe: IO[bytes]) -> None:
        """Send request and archive, then a sign of life now and then."""
        with suppress(OSError, ValueError):
            pipe.write(self._request.model_dump_json().encode() + b"\n")
            with self._archive.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    view = memoryview(block)
                    while view:
                        view = view[pipe.write(view) :]
                        self._heard = time.monotonic()
            while not self._over.wait(self._board.lease_s / 4):
                pipe.write(b"\n")

    def _listen(self, process: subprocess.Popen[bytes]) -> tuple[dict[str, Any], dict[str, Path]]:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                event = self._event(process.stdout, selector)
                if event["event"] == "error":
                    raise self._located(error_from_dict(event["error"]))
                if event["event"] == "done":
                    return event, self._receive(process.stdout, selector, event["files"])
                if event["event"] == "leased":
                    self._report(None, f"measuring on {self._board.name}")
                elif event["event"] in ("progress", "waiting"):
                    self._report(event.get("fraction"), f"{self._board.name}: {event['message']}")

    def _located(self, error: EdgemillError) -> EdgemillError:
        error.where = title(self._board) + (f", {error.where}" if error.where not in (None, self._board.name) else "")
        return error

    def _event(self, pipe: IO[bytes], selector: selectors.BaseSelector) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_LIMIT:
                raise self._nonsense(self._buffer[:200])
            self._buffer += self._block(pipe, selector)
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            event: dict[str, Any] = json.loads(line)
            event["event"].strip()
        except (ValueError, TypeError, KeyError, AttributeError):
            raise self._nonsense(line) from None
        return event

    def _receive(self, pipe: IO[bytes], selector: selectors.BaseSelector, sizes: Mapping[str, int]) -> dict[str, Path]:
        files = {}
        for name, size in sizes.items():
            if "/" in name or name.startswith("."):
                raise self._nonsense(name.encode())
            files[name] = self._out / name
            with files[name].open("wb") as stream:
                left = size
                while left:
                    if not self._buffer:
                        self._buffer = self._block(pipe, selector)
                    stream.write(self._buffer[:left])
                    taken = min(left, len(self._buffer))
                    left, self._buffer = left - taken, self._buffer[taken:]
        return files

    def _block(self, pipe: IO[bytes], selector: selectors.BaseSelector) -> bytes:
        limit_s = self._board.lease_s + _SILENCE_MARGIN_S
        while not selector.select(timeout=1.0):
            if time.monotonic() - self._heard > limit_s:
                raise ToolchainError(
                    "The board has gone silent.",
                    where=title(self._board),
                    expected=f"a sign of life every {self._board.lease_s:.0f} s",
                    remedy="it frees itself when its lease ends; see whether it hangs, and run again",
                )
        block = os.read(pipe.fileno(), _BLOCK)
        if not block:
            raise _EndedError
        self._heard = time.monotonic()
        return block

    def _nonsense(self, got: bytes) -> ToolchainError:
        return ToolchainError(
            "The board answers with nonsense.",
            where=title(self._board),
            got=got[:200].decode(errors="replace"),
            remedy="a login script there that prints something spoils every answer; let it be silent",
        )

    def _leave(self, process: subprocess.Popen[bytes], patience_s: float) -> None:
        with suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _EndedError(Exception):
    """The SSH client has ended."""
