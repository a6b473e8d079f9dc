"""The inventory: which boards there are, and how each is reached. One YAML file, one entry a board."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from edgemill.errors import RecipeError
from edgemill.files import write_atomically
from edgemill.recipe.section import Section
from edgemill.store import state_folder
from edgemill.targets.catalog import load_target

INVENTORY = "EDGEMILL_BOARDS"
"""Environment variable: the inventory's file."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_HOST = r"^[A-Za-z0-9][A-Za-z0-9._:%-]*$"
_USER = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
_PATH = r"^[^\s'\"\\$`-][^\s'\"\\$`]*$"
_REMEDY = "docs/boards.md names every key"


class Hop(Section):
    """A machine that is reached by SSH, with a key."""

    host: str = Field(pattern=_HOST, description="name or address")
    user: str | None = Field(None, pattern=_USER, description="left out: as the SSH client chooses")
    port: int = Field(22, gt=0, lt=65536)
    key: Path | None = Field(None, description="private key; left out: those of the agent and of ~/.ssh")
    known_hosts: Path | None = Field(None, description="file with the host's key; left out: ~/.ssh/known_hosts")
    jump: Hop | None = Field(None, description="machine through which it is reached")


class SerialLine(Section):
    """A microcontroller at a serial line, with a firmware that speaks the protocol of `edgemill.boards.serial`."""

    port: Path = Field(description="device file, e.g. /dev/ttyACM0")
    baud: int = Field(115200, gt=0)


class Signer(Section):
    """The key with which a board signs its results; written by `edgemill device enroll`."""

    key: str = Field(pattern=r"^ssh-ed25519 [A-Za-z0-9+/=]+$", description="public part")
    fingerprint: str = Field(description="of the key, as `ssh-keygen -l` shows it")

    @model_validator(mode="after")
    def _fits(self) -> Signer:
        if self.fingerprint != fingerprint_of(self.key):
            raise ValueError(f"fingerprint: that of this key is {fingerprint_of(self.key)}")
        return self


class Board(Section):
    """A board."""

    name: str
    target: str = Field(description="name in the catalog, or a target file")
    ssh: Hop | None = None
    serial: SerialLine | None = None
    python: str = Field("python3", pattern=_PATH, description="interpreter on the board, 3.11 or later")
    folder: str = Field(".edgemill-board", pattern=_PATH, description="on the board, from the home of the user")
    concurrency: int = Field(1, ge=1, description="measurements on their way to it at once; the lease lets one work")
    lease_s: float = Field(120.0, ge=2, description="how long client or work may be silent until the board is freed")
    wait_s: float = Field(600.0, ge=0, description="how long to wait while another has the board")
    emulated: bool = Field(False, description="an emulator answers there, whose times say nothing")
    signer: Signer | None = None

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a board's name has small letters, digits and dashes only")
        return value

    @model_validator(mode="after")
    def _reached(self) -> Board:
        if (self.ssh is None) == (self.serial is None):
            raise ValueError("a board is reached by ssh or by serial: give one of them")
        return self

    @property
    def source(self) -> str:
        """Label of its figures (design rule 7)."""
        return f"{'emulated' if self.emulated else 'measured'}:board:{self.name}"

    @property
    def identity(self) -> str:
        """What tells it from another board of the same name; part of the cache key of its figures."""
        return self.signer.fingerprint if self.signer else str(self.serial)


def inventory_path() -> Path:
    """EDGEMILL_BOARDS, else `boards.yaml` in the state folder."""
    chosen = os.environ.get(INVENTORY)
    return Path(chosen).absolute() if chosen else state_folder() / "boards.yaml"


def load_inventory(path: Path | None = None) -> dict[str, Board]:
    """All boards by name; none where there is no inventory.

    Args:
        path: the file; None: `inventory_path()`. Relative paths in it are relative to its folder.

    Raises:
        RecipeError: the file cannot be read or is not valid.
    """
    path = path or inventory_path()
    entries = _read(path)
    return {str(name): _board(path, str(name), entry) for name, entry in entries.items()}


def find_board(name: str, path: Path | None = None) -> Board:
    """One board.

    Raises:
        RecipeError: there is no such board, or the inventory is not valid.
    """
    boards = load_inventory(path)
    if name not in boards:
        near = difflib.get_close_matches(name, boards, n=3)
        raise RecipeError(
            "There is no such board.",
            where=str(path or inventory_path()),
            got=name,
            expected=", ".join(sorted(boards)) or "an inventory with boards in it",
            remedy=f"did you mean {' or '.join(near)}?" if near else _REMEDY,
        )
    return boards[name]


def boards_of(target: str, path: Path | None = None) -> list[Board]:
    """Boards of a target whose results can be believed: those enrolled, and those at a serial line."""
    return [
        board for board in load_inventory(path).values() if board.target == target and (board.signer or board.serial)
    ]


def fingerprint_of(key: str) -> str:
    """Fingerprint of a public key `TYPE BASE64`, as `ssh-keygen -l` shows it.

    Raises:
        ValueError: that is no key.
    """
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise ValueError("key: not a public key") from error
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def keep_signer(name: str, key: str, path: Path | None = None) -> Board:
    """Write the key of a board into the inventory; everything else in the file stays as it is.

    Raises:
        RecipeError: the inventory has another key, or its entry cannot be added to.
    """
    path = path or inventory_path()
    board = find_board(name, path)
    signer = Signer(key=key, fingerprint=fingerprint_of(key))
    if board.signer == signer:
        return board
    if board.signer is not None:
        raise RecipeError(
            "The board has another key than when it was enrolled.",
            where=f"{path}: {name}",
            expected=board.signer.fingerprint,
            got=signer.fingerprint,
            remedy="somebody set the board up anew, or it is another one; if that is right, remove `signer` and enroll",
        )
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    entry = next(value for key, value in root.value if key.value == name)
    if not isinstance(entry, yaml.MappingNode) or entry.flow_style:
        raise RecipeError(
            "The entry of the board is written in one line, where nothing can be added.",
            where=f"{path}: {name}",
            remedy=f"add `signer: {{key: {key}, fingerprint: '{signer.fingerprint}'}}`",
        )
    line, indent = entry.start_mark.line, entry.start_mark.column
    lines = text.splitlines(keepends=True)
    lines.insert(line, f"{' ' * indent}signer: {{key: {key}, fingerprint: '{signer.fingerprint}'}}\n")
    write_atomically(path, "".join(lines))
    return find_board(name, path)


def _read(path: Path) -> dict[Any, Any]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        got = " ".join(str(error).split())[:200]
        raise RecipeError("The inventory of boards cannot be read.", where=str(path), got=got) from error
    if entries is None:
        return {}
    if not isinstance(entries, dict):
        raise RecipeError("The inventory is no mapping from names to boards.", where=str(path), remedy=_REMEDY)
    return entries


def _board(path: Path, name: str, entry: Any) -> Board:
    if not isinstance(entry, dict):
        raise RecipeError(
            "The entry of a board is no mapping.", where=f"{path}: {name}", got=str(entry)[:80], remedy=_REMEDY
        )
    try:
        board = Board.model_validate({"name": name} | entry)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (name, *first["loc"]))
        known = sorted(set(Board.model_fields) - {"name"})
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1) if first["loc"] else []
        raise RecipeError(
            "The inventory of boards is not valid.",
            where=f"{path}: {key}",
            expected=first["msg"].removeprefix("Value error, "),
            got=str(first["input"])[:80],
            remedy=f"did you mean {near[0]}?" if near and first["type"] == "extra_forbidden" else _REMEDY,
        ) from error
    load_target(board.target)
    if board.ssh is None:
        return board
    return board.model_copy(update={"ssh": _with_paths(board.ssh, path.parent)})


def _with_paths(hop: Hop, folder: Path) -> Hop:
    """The hop with absolute paths."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    jump = None if hop.jump is None else _with_paths(hop.jump, folder)
    return hop.model_copy(update={"key": absolute(hop.key), "known_hosts": absolute(hop.known_hosts), "jump": jump})
