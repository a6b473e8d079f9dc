"""The OpenSSH client: commands on a board, without any question to whoever sits here.

Host keys must be known, passwords are never asked for, and a connection that dies is noticed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from edgemill.boards.inventory import Board, Hop
from edgemill.errors import ToolchainError

CONNECT_S = 15
"""Seconds until a host that does not answer counts as unreachable."""

_LOST = 255  # exit status of ssh for its own failures
_ALIVE_COUNT = 3
_TAIL_LINES = 4

_FAILURES = (
    (
        ("REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed", "host key is known for"),
        "The board's host key is not the known one.",
        "if the board was set up anew, put its key into known_hosts (compare `ssh-keyscan HOST` with what the board's "
        "own console shows); if not, something else answers at its address",
    ),
    (
        ("Permission denied", "Too many authentication failures"),
        "The board refuses the key.",
        "put the public key into ~/.ssh/authorized_keys of that user on the board, or give the right user and key",
    ),
    (
        ("Could not resolve", "Name or service not known"),
        "The board's address is not known.",
        "check `host` in the inventory",
    ),
    (
        ("UNPROTECTED PRIVATE KEY", "No such file or directory", "Load key", "no such identity"),
        "The SSH client cannot use its key.",
        "check `key` in the inventory; only its owner may be able to read it",
    ),
    (
        (
            "Connection refused",
            "No route to host",
            "Network is unreachable",
            "Connection timed out",
            "timed out during",
        ),
        "The board cannot be reached.",
        "is it switched on, on the network, and does its SSH server run?",
    ),
    (
        ("not responding", "Broken pipe", "Connection reset", "closed by remote", "Connection closed", "kex_exchange"),
        "The connection to the board was lost.",
        "the board ends what ran there by itself; see whether it is up, and run again",
    ),
)
"""What the SSH client says, what that means, and what helps; the first that fits counts."""


def ssh_command(board: Board, remote: str) -> list[str]:
    """Command line that runs a shell command on a board.

    Raises:
        ToolchainError: there is no SSH client here.
    """
    assert board.ssh is not None
    program = shutil.which("ssh")
    if program is None:
        raise ToolchainError("There is no SSH client here.", remedy="apt-get install openssh-client")
    return [program, *_options(board.ssh, program, board.lease_s), "--", board.ssh.host, remote]


def environment() -> dict[str, str]:
    """For the SSH client: its messages in English, and no window that asks for a password."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SSH_ASKPASS")} | {"LC_ALL": "C"}


def call(board: Board, remote: str, entry: bytes = b"", limit_s: float = 120.0) -> bytes:
    """Run a shell command on a board and return what it writes to standard output.

    Args:
        board: with an SSH address.
        remote: the command.
        entry: its standard input.
        limit_s: seconds until it counts as hanging.

    Raises:
        ToolchainError: the board cannot be reached, or the command fails.
    """
    try:
        done = subprocess.run(
            ssh_command(board, remote),
            input=entry,
            capture_output=True,
            timeout=limit_s,
            check=False,
            env=environment(),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise ToolchainError(
            "The board did not answer in time.", where=title(board), expected=f"within {limit_s:.0f} s"
        ) from None
    if done.returncode:
        raise failure(board, done.returncode, done.stderr.decode(errors="replace"))
    return done.stdout


def failure(board: Board, status: int, told: str) -> ToolchainError:
    """What an exit status and the messages of the SSH client, or of a command on the board, mean.

    Args:
        board: which board.
        status: exit status of ssh: its own failure, or what the command gave.
        told: standard error.
    """
    lines = [line.strip() for line in told.splitlines() if line.strip().strip("@")]
    words = " | ".join(lines[-_TAIL_LINES:])
    if status == _LOST:
        for signs, what, remedy in _FAILURES:
            if any(sign in told for sign in signs):
                return ToolchainError(what, where=title(board), got=words, remedy=remedy)
    return ToolchainError(
        "The connection to the board failed." if status == _LOST else "A command on the board failed.",
        where=title(board),
        got=f"exit status {status}" + (f"; last words: {words}" if words else ""),
    )


def title(board: Board) -> str:
    """Name and address, for people."""
    if board.ssh is None:
        return f"board {board.name} at {board.serial.port if board.serial else 'nowhere'}"
    user = f"{board.ssh.user}@" if board.ssh.user else ""
    return f"board {board.name} at {user}{board.ssh.host}:{board.ssh.port}"


def _options(hop: Hop, program: str, lease_s: float) -> list[str]:
    options = {
        "BatchMode": "yes",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(CONNECT_S),
        "ServerAliveInterval": str(max(1, min(15, round(lease_s / (2 * _ALIVE_COUNT))))),
        "ServerAliveCountMax": str(_ALIVE_COUNT),
        "ControlMaster": "no",
        "ControlPath": "none",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "RequestTTY": "no",
        "PermitLocalCommand": "no",
        "UpdateHostKeys": "no",
        "Port": str(hop.port),
    }
    if hop.user is not None:
        options["User"] = hop.user
    if hop.key is not None:
        options |= {"IdentityFile": _quoted(hop.key), "IdentitiesOnly": "yes", "IdentityAgent": "none"}
    if hop.known_hosts is not None:
        options |= {"UserKnownHostsFile": _quoted(hop.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
    if hop.jump is not None:
        # ProxyJump would pass neither the key nor the known hosts on, and could ask for a password
        inner = shlex.join([program, *_options(hop.jump, program, lease_s)]).replace("%", "%%")
        options["ProxyCommand"] = f"{inner} -W '[%h]:%p' -- {shlex.quote(hop.jump.host)}"
    return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]


def _quoted(path: Path) -> str:
    """A path as ssh_config(5) takes it: percent signs are its tokens, and blanks separate."""
    return '"' + str(path).replace("%", "%%") + '"'
