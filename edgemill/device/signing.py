"""The key of a board: made once, kept on the board, signs every result (`ssh-keygen -Y`, OpenSSH 8.1 and later)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from edgemill.errors import ToolchainError
from edgemill.files import locked

NAMESPACE = "edgemill"
"""What the signatures are for, so that none of another use of a key counts here."""

_KEY = "key"
_LIMIT_S = 60


def enroll(folder: Path) -> str:
    """The public key of this board, as `ssh-ed25519 BASE64`; made if there is none.

    Raises:
        ToolchainError: ssh-keygen is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "enroll.lock"):
        if not (folder / _KEY).exists():
            temporary = folder / ".key.new"
            for path in (temporary, temporary.with_suffix(".new.pub")):
                path.unlink(missing_ok=True)
            _keygen("-q", "-t", "ed25519", "-N", "", "-C", "edgemill", "-f", str(temporary))
            Path(f"{temporary}.pub").replace(folder / f"{_KEY}.pub")
            temporary.replace(folder / _KEY)
    return public_key(folder)


def public_key(folder: Path) -> str:
    """The public key of this board.

    Raises:
        ToolchainError: it has none.
    """
    try:
        kind, blob, *_ = (folder / f"{_KEY}.pub").read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise ToolchainError(
            "The board has no key to sign its results with.",
            where=str(folder / _KEY),
            remedy="edgemill device enroll BOARD",
        ) from error
    return f"{kind} {blob}"


def sign(folder: Path, text: str) -> str:
    """Signature of a text with the key of this board, armoured as `ssh-keygen -Y sign` writes it.

    Raises:
        ToolchainError: there is no key, or ssh-keygen fails.
    """
    public_key(folder)
    return _keygen("-Y", "sign", "-n", NAMESPACE, "-f", str(folder / _KEY), text=text)


def _keygen(*arguments: str, text: str = "") -> str:
    try:
        done = subprocess.run(
            ["ssh-keygen", *arguments], input=text.encode(), capture_output=True, timeout=_LIMIT_S, check=False
        )
    except FileNotFoundError:
        raise ToolchainError("ssh-keygen is not on the board.", remedy="apt-get install openssh-client") from None
    except subprocess.TimeoutExpired:
        raise ToolchainError("ssh-keygen did not end.", expected=f"at most {_LIMIT_S} s") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines()
        raise ToolchainError(
            f"ssh-keygen {' '.join(arguments[:2])} failed on the board.",
            got=f"exit status {done.returncode}: {' | '.join(told[-3:])}",
            remedy="OpenSSH 8.1 or later is needed on the board",
        )
    return done.stdout.decode()
