"""A serial line as lines of text with a checksum. Standard library only; Linux and other systems with termios."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import termios
import time
import tty
import zlib
from contextlib import suppress
from typing import Self

from edgemill.boards.inventory import SerialLine
from edgemill.errors import RecipeError, ToolchainError

_POLL_S = 0.2
_LIMIT = 1 << 24


class DamagedLineError(Exception):
    """A line came that does not fit its checksum, or none in time."""


class Line:
    """An open serial line that nobody else uses meanwhile. Every line ends with `*` and the CRC-32 of what is before,
    8 hexadecimal digits."""

    def __init__(self, where: SerialLine, wait_s: float) -> None:
        """Open it: 8 data bits, no parity, 1 stop bit, no flow control.

        Args:
            where: device file and speed.
            wait_s: how long to wait while another process has it.

        Raises:
            RecipeError: this system does not have that speed.
            ToolchainError: there is no such line, or another has it.
        """
        self._title = str(where.port)
        speed = getattr(termios, f"B{where.baud}", None)
        if speed is None:
            raise RecipeError("The serial line does not have this speed.", where=self._title, got=where.baud)
        try:
            self._descriptor = os.open(where.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ToolchainError(
                "The serial line cannot be opened.",
                where=self._title,
                got=error.strerror,
                remedy="is the board connected, and may this user use the line (group dialout)?",
            ) from error
        try:
            self._have_alone(wait_s)
            tty.setraw(self._descriptor)
            attributes = termios.tcgetattr(self._descriptor)
            attributes[2] |= termios.CLOCAL | termios.CREAD
            attributes[4] = attributes[5] = speed
            termios.tcsetattr(self._descriptor, termios.TCSANOW, attributes)
        except termios.error as error:
            os.close(self._descriptor)
            raise ToolchainError("That is no serial line.", where=self._title, got=str(error.args[-1])) from error
        except BaseException:
            os.close(self._descriptor)
            raise
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def forget(self) -> None:
        """Drop what came and was not read."""
        self._buffer = b""
        with suppress(termios.error):
            termios.tcflush(self._descriptor, termios.TCIFLUSH)

    def say(self, text: str, limit_s: float) -> None:
        """Send a line.

        Raises:
            ToolchainError: the line takes nothing any more.
        """
        left = memoryview(f"{text} *{zlib.crc32(text.encode()):08x}\n".encode("ascii"))
        deadline = time.monotonic() + limit_s
        while left:
            if not select.select([], [self._descriptor], [], _POLL_S)[1]:
                if time.monotonic() > deadline:
                    raise self._gone("it takes nothing any more")
                continue
            with suppress(BlockingIOError):
                try:
                    left = left[os.write(self._descriptor, left) :]
                except OSError as error:
                    if error.errno == errno.EAGAIN:
                        raise
                    raise self._gone(error.strerror or str(error)) from error

    def hear(self, limit_s: float) -> str:
        """The next line, without its checksum.

        Raises:
            DamagedLineError: none comes in time, or it does not fit its checksum.
            ToolchainError: the line is gone.
        """
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._buffer) > _LIMIT:
                raise DamagedLineError(f"no answer within {limit_s:.0f} s")
            if not select.select([self._descriptor], [], [], left)[0]:
                continue
            try:
                block = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._gone(error.strerror or str(error)) from error
            if not block:
                raise self._gone("the other end is closed")
            self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        text, _, checksum = line.strip().rpartition(b" *")
        if f"{zlib.crc32(text):08x}".encode() != checksum.lower():
            raise DamagedLineError(f"a line with a wrong checksum: {line[:60]!r}")
        return text.decode("ascii", errors="replace")

    def _have_alone(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ToolchainError(
                        "Another process has the serial line.",
                        where=self._title,
                        expected=f"free within {wait_s:.0f} s",
                        remedy=f"`fuser {self._title}` shows which; run again when it has ended",
                    ) from None
                time.sleep(_POLL_S)

    def _gone(self, why: str) -> ToolchainError:
        return ToolchainError(
            "The serial line is gone.", where=self._title, got=why, remedy="connect the board again, and run again"
        )
