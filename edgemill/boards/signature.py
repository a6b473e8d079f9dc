"""Signatures of boards: a result counts only as the board's own key signed it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from edgemill.boards.inventory import Signer
from edgemill.device.signing import NAMESPACE
from edgemill.errors import ToolchainError

_LIMIT_S = 60


def verify(board: str, signer: Signer, text: str, signature: str) -> None:
    """Check that a board's key signed exactly this text.

    Args:
        board: its name.
        signer: its key, from the inventory.
        text: the result, as it came.
        signature: as `ssh-keygen -Y sign` writes it.

    Raises:
        ToolchainError: the text was changed, another key signed it, or ssh-keygen is missing here.
    """
    program = shutil.which("ssh-keygen")
    if program is None:
        raise ToolchainError("There is no ssh-keygen here.", remedy="apt-get install openssh-client")
    with tempfile.TemporaryDirectory(prefix="edgemill-") as name:
        folder = Path(name)
        (folder / "signers").write_text(f'{board} namespaces="{NAMESPACE}" {signer.key}\n', encoding="ascii")
        (folder / "signature").write_text(signature, encoding="utf-8")
        command = [program, "-Y", "verify", "-f", str(folder / "signers"), "-I", board, "-n", NAMESPACE]
        command += ["-s", str(folder / "signature")]
        try:
            done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            raise ToolchainError("ssh-keygen did not end.", expected=f"at most {_LIMIT_S} s") from None
    if done.returncode:
        words = " | ".join((done.stderr + done.stdout).decode(errors="replace").split("\n")).strip(" |")
        raise ToolchainError(
            "The result does not bear the board's signature.",
            where=f"board {board}",
            expected=f"signed with {signer.fingerprint}",
            got=words[-300:],
            remedy="it was changed on its way, or another machine answers; `edgemill device enroll` asks for its key",
        )
