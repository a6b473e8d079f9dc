"""What comes to a board from a client: a request, the archive of a job, signs of life."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from pydantic import Field

from edgemill.artifact import Frozen


class Request(Frozen):
    """What a client asks of a board."""

    protocol: int
    board: str
    owner: str
    nonce: str = Field(min_length=16, description="comes back in the signed result, so that an old one is not taken")
    lease_s: float = Field(gt=0, description="how long client or work may be silent")
    wait_s: float = Field(ge=0, description="how long to wait while another has the board")
    time_limit_s: float = Field(gt=0, description="of the whole work")
    archive_bytes: int = Field(gt=0)


class GoneError(Exception):
    """The client is gone; nobody is left to be told anything."""


class Archive:
    """The part of a stream that is the archive of a job."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size
        self.on_block: Callable[[], None] = lambda: None

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end.

        Raises:
            GoneError: the stream ends before the archive does.
        """
        if self._left == 0:
            return b""
        block = self._stream.read(min(size, self._left))
        if not block:
            raise GoneError
        self._left -= len(block)
        self.on_block()
        return block
