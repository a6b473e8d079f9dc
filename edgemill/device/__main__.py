"""`python -m edgemill.device serve|enroll FOLDER PYTHON`: what a client starts on a board.

PYTHON is the program that the client started: where it is a script around an interpreter, further interpreters are
started by it too.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def main(operation: str, folder: str, python: str) -> None:
    """Serve one request, or say the public key of this board."""
    from edgemill.device.keeper import Keeper
    from edgemill.device.signing import enroll
    from edgemill.errors import EdgemillError

    sys.executable = shutil.which(python) or sys.executable
    board = Path(folder).absolute()
    if operation == "serve":
        out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        Keeper(board, sys.stdin.buffer, out).serve()
        return
    try:
        sys.stdout.write(enroll(board) + "\n")
    except EdgemillError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main(*sys.argv[1:4])
