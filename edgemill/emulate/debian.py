"""Packages of a foreign Debian architecture, without root and without touching the host's dpkg.

apt-get runs with a state folder and a configuration of its own and verifies the archive's signature;
`dpkg-deb -x` unpacks, no maintainer script runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from edgemill.artifact import digest_path
from edgemill.errors import ToolchainError

RELEASE = "bookworm"
PYTHON = "3.11"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "libatomic1", "zlib1g", "libexpat1", "libffi8", "libssl3"),
    *("liblzma5", "libbz2-1.0", "libsqlite3-0", "libuuid1", "libcrypt1"),
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
)
"""A Python interpreter, and the libraries that it and the runtimes are linked with."""

_LIMIT_S = 900


def require_tools() -> None:
    """Check that packages can be fetched and unpacked here.

    Raises:
        ToolchainError: naming what is missing.
    """
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise ToolchainError(
            "A sysroot is made of Debian packages, which cannot be fetched here.",
            where="PATH",
            expected="apt-get and dpkg-deb",
            got=f"no {' and no '.join(missing)}",
            remedy="build it on Debian or Ubuntu and copy the folder; EDGEMILL_SYSROOTS names the folder that holds it",
        )
    if not KEYRING.exists():
        raise ToolchainError(
            "The key that Debian signs its archive with is not here.",
            where=str(KEYRING),
            remedy="apt-get install debian-archive-keyring",
        )


def own_mirror() -> str:
    """The Debian archive from which this machine takes its own packages.

    Raises:
        ToolchainError: it takes none from Debian.
    """
    listed = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    ).stdout.split()
    if not listed:
        raise ToolchainError(
            "This machine takes no packages from Debian, so it is not known where its archive is.",
            where="apt-get indextargets",
            expected="a source of Debian's packages, with its lists updated",
            remedy="apt-get update, or name a mirror: edgemill sysroot --mirror ADDRESS",
        )
    return listed[0]


def fetch(architecture: str, work: Path, mirror: str) -> list[Path]:
    """Download `PACKAGES` of an architecture, verified by apt.

    Args:
        architecture: Debian's name, e.g. arm64.
        work: folder for apt's own files.
        mirror: of the Debian archive.

    Returns:
        the .deb files, sorted.

    Raises:
        ToolchainError: apt-get fails.
    """
    downloads = work / "debs"
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    (work / "status").touch()
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {RELEASE} main\n", encoding="utf-8")
    configuration = work / "apt.conf"
    configuration.write_text(_configuration(architecture, work), encoding="utf-8")
    environment = os.environ | {"APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}
    _run(["apt-get", "update", "-q"], downloads, environment)
    _run(["apt-get", "download", "-q", *PACKAGES], downloads, environment)
    found = sorted(downloads.glob("*.deb"))
    if len(found) != len(PACKAGES):
        raise ToolchainError(
            "apt-get did not fetch all packages.",
            expected=f"{len(PACKAGES)} files",
            got=", ".join(path.name for path in found),
        )
    return found


def unpack(packages: list[Path], root: Path) -> dict[str, str]:
    """Unpack packages into a folder.

    Returns:
        SHA-256 of every package by file name.
    """
    root.mkdir()
    for package in packages:
        _run(["dpkg-deb", "-x", str(package), str(root)], root, dict(os.environ))
    return {package.name: digest_path(package) for package in packages}


def _configuration(architecture: str, work: Path) -> str:
    # Hooks and sources of the host stay out; how it reaches the network (proxy, certificates) is taken over.
    network = subprocess.run(
        ["apt-config", "dump", "Acquire"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    own = {
        "Dir::Etc::parts": "/dev/null",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State": work,
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    proxies = [line for line in network.splitlines() if line.startswith(("Acquire::http", "Acquire::https"))]
    return "\n".join([*proxies, *(f'{key} "{value}";' for key, value in own.items())]) + "\n"


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ToolchainError(
            f"{command[0]} did not come to an end.", where=" ".join(command[:3]), expected=f"at most {_LIMIT_S} s"
        ) from None
    if done.returncode:
        told = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ToolchainError(
            f"{command[0]} failed.",
            where=" ".join(command[:3]),
            got=f"exit status {done.returncode}; {' | '.join(told[-4:])}",
            remedy="the Debian archive must be reachable; --mirror names another one",
        )
