"""Environments of the peers: one locked, hash-checked virtual environment a peer, made when it is first needed.

`envs/NAME.in` says what a peer needs and `envs/NAME.lock` pins every file of it by SHA-256. Written by

    uv pip compile --python-platform linux --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links envs/NAME.in -o envs/NAME.lock

Peers that need PyTorch are locked to its build for CPUs (`torch==2.13.0+cpu`), which the Python package index does
not hold: the folder or page with that wheel is given by UV_FIND_LINKS or PIP_FIND_LINKS. Without it the environment
fails, instead of fetching several gigabytes of CUDA libraries that no CPU measurement uses.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCKS = Path(__file__).resolve().parent / "envs"
WORK = ROOT / "build" / "peers"
PYTHON = "3.11"
"""The version that the locks were resolved for."""
INSTALL_LIMIT_S = 1200.0
_MARK = "environment.json"
_SILENT = {
    "DO_NOT_TRACK": "true",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "NNCF_CI": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
}


class InstallError(Exception):
    """A peer's environment could not be made; the message says why and what would help."""


@dataclass(frozen=True)
class Environment:
    """An installed peer.

    Attributes:
        name: of the peer.
        python: its interpreter.
        seconds: that making it took, downloads included; as recorded then when it is reused.
        megabytes: of all its files, 10^6 bytes.
        lock: SHA-256 of its lock file.
        reused: it was there already.
    """

    name: str
    python: Path
    seconds: float
    megabytes: float
    lock: str
    reused: bool


def names() -> tuple[str, ...]:
    """Peers that have a lock file, sorted."""
    return tuple(sorted(path.stem for path in LOCKS.glob("*.lock")))


def ensure(name: str, work: Path = WORK, locks: Path = LOCKS) -> Environment:
    """Make the environment of a peer, or reuse the one made from the same lock file.

    Args:
        name: of the peer: `locks/NAME.lock` must be there.
        work: folder of the environments; the environment is `work/NAME`.
        locks: folder of the lock files.

    Raises:
        InstallError: no such lock, no uv, or the installation failed.
    """
    lock = locks / f"{name}.lock"
    if not lock.is_file():
        found = ", ".join(sorted(path.stem for path in locks.glob("*.lock"))) or "none"
        raise InstallError(f"no lock file {lock.name} for the peer {name!r}; there are: {found}")
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    folder = work / name
    work.mkdir(parents=True, exist_ok=True)
    with _alone(work / f".{name}.flock"):
        made = _made_before(folder, digest)
        return made or _make(name, folder, lock, digest)


def child_environment() -> dict[str, str]:
    """Environment variables for a peer's process: no telemetry, no GPU, bytecode kept, nothing of our own packages."""
    inherited = {
        key: value
        for key, value in os.environ.items()
        if key not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE", "TF_USE_LEGACY_KERAS"}
    }
    return inherited | _SILENT


def _made_before(folder: Path, digest: str) -> Environment | None:
    try:
        record = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = _interpreter(folder)
    if record.get("lock") != digest or not python.exists():
        return None
    return Environment(folder.name, python, record["seconds"], record["megabytes"], digest, reused=True)


def _make(name: str, folder: Path, lock: Path, digest: str) -> Environment:
    uv = _uv()
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    _run(name, [uv, "venv", "--quiet", "--no-config", "--python", PYTHON, str(folder)])
    command = [uv, "pip", "sync", "--quiet", "--require-hashes"]
    _run(name, [*command, "--python", str(folder), str(lock)])
    made = Environment(
        name, _interpreter(folder), round(time.monotonic() - start, 1), _megabytes(folder), digest, reused=False
    )
    record = {key: value for key, value in asdict(made).items() if key in ("lock", "seconds", "megabytes")}
    # Written last: a folder without it was interrupted and is made anew.
    (folder / _MARK).write_text(json.dumps(record) + "\n", encoding="utf-8")
    return made


def _run(name: str, command: list[str]) -> None:
    environment = dict(os.environ) | {"UV_PYTHON_DOWNLOADS": "never"}
    if "UV_FIND_LINKS" not in environment and "PIP_FIND_LINKS" in environment:
        environment["UV_FIND_LINKS"] = ",".join(environment["PIP_FIND_LINKS"].split())
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{name}: installing took longer than {INSTALL_LIMIT_S:.0f} s") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        remedy = ""
        if "torch" in said:
            remedy = (
                "; give the folder with PyTorch's wheel for CPUs (the +cpu build named in the lock) by UV_FIND_LINKS"
            )
        raise InstallError(f"{name}: `uv {' '.join(command[1:3])}` failed: {said[:600]}{remedy}")


def _uv() -> str:
    own = ROOT / ".tools" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise InstallError("uv is not installed; `make setup` installs it")
    return found


def _interpreter(folder: Path) -> Path:
    return folder / "bin" / "python"


def _megabytes(folder: Path) -> float:
    return round(sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process at a time makes an environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
