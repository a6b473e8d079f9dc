"""A real SSH server on a free port of the loopback address, with keys and folders of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_port

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="no SSH server: apt-get install openssh-server"
)
KEYGEN = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f")


class Server:
    """An SSH server; `key` opens it and `known_hosts` knows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "tmp").mkdir()
        self.port = free_port()
        self.key, self.known_hosts = folder / "id", folder / "known_hosts"
        for name in ("id", "host"):
            subprocess.run([*KEYGEN, str(folder / name)], check=True)
        shutil.copy(folder / "id.pub", folder / "authorized_keys")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            f"MaxStartups 100\nSetEnv TMPDIR={folder}/tmp HOME={folder}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.folder / "config")], stderr=log)
        deadline = time.monotonic() + 10
        while "Server listening" not in (self.folder / "log").read_text():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def sessions(self) -> list[psutil.Process]:
        """The server's own processes, without what it runs for a client."""
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self.process.pid)
            return [server, *(one for one in server.children(recursive=True) if one.name().startswith("sshd"))]
        return []

    def signal(self, number: int) -> None:
        """Send a signal to the server and its sessions."""
        for process in self.sessions():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """End the server and its sessions."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def hop(self) -> dict[str, object]:
        """Entry `ssh` of an inventory."""
        return {"host": "127.0.0.1", "port": self.port, "key": str(self.key), "known_hosts": str(self.known_hosts)}
