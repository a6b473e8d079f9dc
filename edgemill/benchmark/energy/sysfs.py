"""Reading sensors that the kernel shows as small text files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgemill.errors import ToolchainError


def text(path: Path) -> str | None:
    """Content without surrounding white space; None where the file is missing or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int:
    """The whole number in a file.

    Raises:
        ToolchainError: it cannot be read, or holds no number.
    """
    try:
        return int(path.read_text(encoding="ascii", errors="replace"))
    except OSError as error:
        raise ToolchainError("A sensor cannot be read.", where=str(path), got=error.strerror) from error
    except ValueError as error:
        raise ToolchainError("A sensor gives no number.", where=str(path), got=text(path)) from error


def refusal(path: Path, remedy: str) -> str | None:
    """Why a file holds no number that can be read here, with what would help; None where it does."""
    try:
        int(path.read_text(encoding="ascii", errors="replace"))
    except PermissionError:
        return f"{path} may not be read by this user: {remedy}"
    except OSError as error:
        return f"{path}: {error.strerror}"
    except ValueError:
        return f"{path} holds no number"
    return None


def children(folder: Path, pattern: str) -> list[Path]:
    """Entries of a folder in the order of the numbers in their names; empty where there is none."""
    try:
        found = list(folder.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=lambda path: _key(path.name))


def indices(text_: str) -> list[int]:
    """Numbers of a list as the kernel writes it: `0,2-4` is 0, 2, 3, 4."""
    numbers: list[int] = []
    for part in filter(None, text_.replace("\n", "").split(",")):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _key(name: str) -> tuple[tuple[int, str], ...]:
    parts: Iterable[str] = "".join(c if c.isdigit() else f"\0{c}\0" for c in name).split("\0")
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in parts if part)
