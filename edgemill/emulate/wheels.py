"""Python distributions for a foreign architecture, in the versions that are installed here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from edgemill.emulate.debian import PYTHON
from edgemill.errors import ToolchainError
from edgemill.toolchains import load_toolchain

DISTRIBUTIONS = (
    *("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "packaging", "protobuf", "backports-strenum"),
    *("typing-extensions", "tqdm", "pydantic", "pydantic-core", "annotated-types", "typing-inspection"),
)
"""What the guest imports: numpy, pydantic, the runtimes, and what these cannot be imported without."""

FROM_TOOLCHAINS = {"ncnn": ("ncnn",), "iree": ("iree-base-runtime", "ml-dtypes")}
"""By toolchain, what the guest imports of it, in the version of its lock file."""

_CHECKOUT = Path(__file__).resolve().parents[2]
_LOCK = _CHECKOUT / "requirements" / "dev.lock"
_LIMIT_S = 900


def install(architecture: str, site: Path, work: Path) -> tuple[dict[str, str], bool]:
    """Install `DISTRIBUTIONS` and `FROM_TOOLCHAINS` into a folder; nothing of them is run.

    Hashes come from the lock file of the checkout. Without one, or where something else is installed
    than it names, the installed versions are taken and the package index vouches for them.

    Args:
        architecture: as platform.machine() names it.
        site: folder to fill.
        work: scratch.

    Returns:
        version by distribution, and whether hashes were checked.

    Raises:
        ToolchainError: no installer, or it fails.
    """
    own = {name: metadata.version(name) for name in DISTRIBUTIONS}
    wanted = own | _of_toolchains()
    lines = locked(_LOCK, own)
    if lines:
        for name, distributions in FROM_TOOLCHAINS.items():
            toolchain = load_toolchain(name)
            lines += locked(toolchain.lock, toolchain.versions(distributions))
    requirements = work / "requirements.txt"
    requirements.write_text(
        "".join(lines) if lines else "".join(f"{name}=={version}\n" for name, version in wanted.items()),
        encoding="utf-8",
    )
    command = [*_installer(architecture), *(["--require-hashes"] if lines else [])]
    command += ["--no-deps", "--only-binary", ":all:", "--target", str(site), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ToolchainError("The installer did not come to an end.", expected=f"at most {_LIMIT_S} s") from None
    if done.returncode:
        told = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise ToolchainError(
            f"The Python distributions for {architecture} could not be installed.",
            where=" ".join(command[:3]),
            got=" | ".join(told[-5:]),
            remedy="the package index must be reachable and have wheels of these versions for this architecture",
        )
    found = {_normal(entry.name): entry.version for entry in metadata.distributions(path=[str(site)])}
    versions = {name: found.get(_normal(name), "") for name in wanted}
    if absent := sorted(name for name, version in versions.items() if not version):
        raise ToolchainError("The installer left distributions out.", where=str(site), got=", ".join(absent))
    return versions, bool(lines)


def complete(versions: dict[str, str]) -> bool:
    """Whether what a sysroot holds includes the runtimes of all toolchains, in the versions of their lock files."""
    return all(versions.get(name) == version for name, version in _of_toolchains().items())


def _of_toolchains() -> dict[str, str]:
    return {
        name: version
        for toolchain, names in FROM_TOOLCHAINS.items()
        for name, version in load_toolchain(toolchain).versions(names).items()
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: Path, wanted: dict[str, str]) -> list[str]:
    """Lines of a lock file for some distributions, with hashes; empty where it does not fit what is installed."""
    if not lock.exists():
        return []
    kept: list[str] = []
    pinned: dict[str, set[str]] = {}
    keep = False
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith((" ", "\t", "#")):
            name, _, version = line.partition("==")
            keep = name.strip() in wanted
            if keep:
                pinned.setdefault(name.strip(), set()).add(version.split()[0])
        if keep and not line.lstrip().startswith("#"):
            kept.append(line)
    return kept if all(version in pinned.get(name, set()) for name, version in wanted.items()) else []


def _installer(architecture: str) -> list[str]:
    own = _CHECKOUT / ".tools" / "bin" / "uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    if uv is not None:
        platform = f"{architecture}-manylinux_2_28"
        # an interpreter of its own choosing would be one that the distributions are not for
        choice = ["--python", sys.executable, "--python-version", PYTHON, "--python-platform", platform]
        return [uv, "pip", "install", "--quiet", *choice]
    for program in ([sys.executable, "-m", "pip"], ["pip"], ["pip3"]):
        if _answers(program):
            platforms = [f"manylinux_2_{minor}_{architecture}" for minor in (28, 27, 24, 17)]
            choices = [part for platform in platforms for part in ("--platform", platform)]
            return [*program, "install", "--quiet", "--python-version", PYTHON, *choices]
    raise ToolchainError("Neither uv nor pip is here.", where="PATH", remedy="pip install uv")


def _answers(program: list[str]) -> bool:
    try:
        return subprocess.run([*program, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
