"""A process beside the work on a board that ends it when its lease runs out, or when its keeper is gone."""

from __future__ import annotations

import os
import select
import shutil
import signal
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from edgemill.device import lease as leases

_POLL_S = 0.5
_DONE = b"."
_DESCRIPTORS = 256  # more than a keeper has open


class Watchdog:
    """Guards a lease from another process; made by the keeper before there is work.

    The watchdog holds nothing of the connection, so that its end does not wait for it.
    """

    def __init__(self, board: Path, lease_id: str, work: Path) -> None:
        """Start it.

        Args:
            board: folder with the lease.
            lease_id: of the lease.
            work: scratch folder, removed where the watchdog has to end the work.
        """
        keeper = os.getpid()
        ear, self._mouth = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            _watch(board, lease_id, work, keeper, ear)
        os.close(ear)

    def dismiss(self) -> None:
        """The work has ended and the lease is given back."""
        with suppress(BrokenPipeError):
            os.write(self._mouth, _DONE)
        os.close(self._mouth)
        os.waitpid(self._process, 0)


def _watch(board: Path, lease_id: str, work: Path, keeper: int, ear: int) -> NoReturn:
    try:
        os.setsid()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(nothing, descriptor)
        os.closerange(3, ear)
        os.closerange(ear + 1, _DESCRIPTORS)
        while True:
            if select.select([ear], [], [], _POLL_S)[0]:
                if os.read(ear, 1) == _DONE:
                    break
                _end(board, lease_id, work, None)
                break
            there = leases.read(board)
            if there is None or there.id != lease_id or not there.valid:
                _end(board, lease_id, work, keeper)
                break
    finally:
        os._exit(0)


def _end(board: Path, lease_id: str, work: Path, keeper: int | None) -> None:
    there = leases.read(board)
    if there is not None and there.id == lease_id:
        leases.end_work(there)
    if keeper is not None and os.getppid() == keeper:  # hung: else it would have prolonged or ended it
        with suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGKILL)
    shutil.rmtree(work, ignore_errors=True)
    leases.release(board, lease_id)
