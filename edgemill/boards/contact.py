"""The first contact with a board: what is there, whether it fits its target, and Edgemill's own package."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version
from pydantic import Field, ValidationError

from edgemill.artifact import Frozen
from edgemill.boards.inventory import Board
from edgemill.boards.package import package
from edgemill.boards.ssh import call, title
from edgemill.errors import ToolchainError
from edgemill.targets.cpu import architecture
from edgemill.targets.provenance import difference
from edgemill.targets.spec import Target

_MINIMUM = (3, 11)
_PROBE = Path(__file__).with_name("probe.py")
_PUSH_LIMIT_S = 300.0
_BASE = {"numpy": "numpy", "pydantic": "pydantic", "psutil": "psutil", "yaml": "pyyaml", "packaging": "packaging"}
_RUNTIMES = {"onnx": ("onnxruntime", "onnxruntime"), "tflite": ("ai_edge_litert", "ai-edge-litert"),
             "openvino": ("openvino", "openvino"), "ncnn": ("ncnn", "ncnn")}  # fmt: skip
"""For every kind of file that a board can run, module and distribution of its runtime."""


class Told(Frozen):
    """What `probe.py` tells of a board."""

    machine: str
    bits: int = Field(description="of a pointer of the interpreter")
    features: tuple[str, ...] = Field(description="of the CPU, in the names of /proc/cpuinfo")
    python: tuple[int, int, int]
    has_package: bool
    has_keygen: bool
    modules: dict[str, str | None] = Field(description="version by module; None: not there")

    @property
    def arch(self) -> str:
        """Architecture of the interpreter, which may be of 32 bits under a kernel of 64."""
        known = architecture(self.machine)
        if self.bits == 64:
            return known
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(known, known)


class Ready(NamedTuple):
    """A board that can be asked.

    Attributes:
        told: what is on it.
        package: digest of Edgemill's package there.
    """

    told: Told
    package: str


def look(board: Board, kinds: Iterable[str] = ()) -> Told:
    """Ask a board what is on it.

    Args:
        board: with an SSH address.
        kinds: of the files that it is to run.

    Raises:
        ToolchainError: it cannot be reached, or has no interpreter.
    """
    wanted = _wanted(kinds)
    modules = [f"{module}={distribution}" for module, distribution in wanted.items()]
    told = call(board, _python(board, "-", board.folder, package().digest, *modules), _PROBE.read_bytes())
    try:
        return Told.model_validate(json.loads(told.splitlines()[-1]))
    except (IndexError, ValueError, ValidationError) as error:
        raise ToolchainError(
            "The board's interpreter answers with nonsense.",
            where=title(board),
            got=told.decode(errors="replace")[-200:],
            remedy=f"check `python: {board.python}` in the inventory",
        ) from error


def unlike(told: Told, target: Target) -> str:
    """Why a board does not calculate as its target does; empty where it does."""
    why = difference(target, told.arch, frozenset(told.features))
    return why.replace("this machine", "the board").replace("this CPU", "its CPU")


def lacks(told: Told, target: Target, kinds: Iterable[str] = ()) -> list[str]:
    """What a board must have and has not, one sentence each with what gets it; empty where nothing is missing."""
    if told.python < _MINIMUM:
        version = ".".join(map(str, told.python))
        return [f"its Python is {version}, and 3.11 or later is needed: set `python` in the inventory"]
    wanted = _wanted(kinds)
    missing = [name for module, name in wanted.items() if told.modules.get(module) is None]
    found = [f"{', '.join(missing)} not installed there: python -m pip install {' '.join(missing)}"] if missing else []
    if not told.has_keygen:
        found.append("ssh-keygen is not there: apt-get install openssh-client")
    by_name = {name: told.modules.get(module) for module, name in wanted.items()}
    there = by_name.get(target.runtime.name)
    if there and not _within(there, target):
        wanted_version = f"{target.runtime.name}>={target.runtime.minimum},<{target.runtime.below}"
        found.append(f"its {target.runtime.name} {there} is not what the target runs: pip install '{wanted_version}'")
    return found


def prepare(board: Board, target: Target, kinds: Iterable[str]) -> Ready:
    """Look whether a board fits its target, and bring it Edgemill's package where that is not there yet.

    Args:
        board: with an SSH address.
        target: that the inventory declares.
        kinds: of the files that it is to run.

    Raises:
        ToolchainError: it cannot be reached, has another CPU than its target, or lacks something.
    """
    kinds = tuple(kinds)
    if strange := [kind for kind in kinds if kind not in _RUNTIMES]:
        raise ToolchainError(
            f"Files of the kind {', '.join(strange)} do not run on a board over SSH.",
            where=title(board),
            expected=", ".join(_RUNTIMES),
        )
    told = look(board, kinds)
    if why := unlike(told, target):
        raise ToolchainError(
            "The board has another CPU than its target.",
            where=title(board),
            expected=f"the CPU of {target.name}",
            got=why,
            remedy="give its own target in the inventory",
        )
    if missing := lacks(told, target, kinds):
        raise ToolchainError("The board lacks something.", where=title(board), got="; ".join(missing))
    if not told.has_package:
        push(board)
    return Ready(told, package().digest)


def push(board: Board) -> None:
    """Bring a board Edgemill's package.

    Raises:
        ToolchainError: it cannot be reached or written.
    """
    digest, content = package()
    script = (
        f"mkdir -p {shlex.quote(board.folder)}/packages && cd {shlex.quote(board.folder)}/packages && "
        'T=$(mktemp -d .new.XXXXXX) && gzip -d | tar -x -f - -C "$T" && test -f "$T/edgemill/__init__.py" && '
        f'{{ test -d {digest} && rm -rf "$T" || mv "$T" {digest}; }}'
    )
    call(board, f"exec sh -c {shlex.quote(script)}", content, _PUSH_LIMIT_S)


def start(board: Board, operation: str) -> str:
    """Shell command that starts Edgemill on a board; see `edgemill.device.__main__`."""
    digest = package().digest
    own = f"{_folder(board)}/packages/{digest}"
    script = (
        f'touch -c {own} && PYTHONSAFEPATH=1 PYTHONPATH={own}"${{PYTHONPATH:+:$PYTHONPATH}}" '
        f"exec {shlex.quote(board.python)} -m edgemill.device {operation} {_folder(board)} "
        f"{shlex.quote(board.python)}"
    )
    return f"exec sh -c {shlex.quote(script)}"


def _wanted(kinds: Iterable[str]) -> dict[str, str]:
    """Distribution by module that a board needs."""
    return _BASE | dict(_RUNTIMES[kind] for kind in kinds if kind in _RUNTIMES)


def _folder(board: Board) -> str:
    """The board's folder as an absolute path, in the words of its shell."""
    folder = shlex.quote(board.folder)
    return folder if board.folder.startswith("/") else f'"$PWD"/{folder}'


def _python(board: Board, *arguments: str) -> str:
    return f"exec {shlex.join([board.python, *arguments])}"


def _within(version: str, target: Target) -> bool:
    try:
        return Version(target.runtime.minimum) <= Version(version) < Version(target.runtime.below)
    except InvalidVersion:
        return False
