"""Where targets are described: the catalog of the package, and the user's own folders and files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from edgemill.errors import RecipeError
from edgemill.targets.spec import Target

FOLDERS = "EDGEMILL_TARGETS"
"""Environment variable: folders with the user's own targets, separated as in PATH."""

_REMEDY = "docs/targets.md names every key; `edgemill targets NAME --json` shows a whole target"


def own_folders() -> list[Path]:
    """The user's folders, in the order in which they are looked through."""
    return [Path(entry) for entry in os.environ.get(FOLDERS, "").split(os.pathsep) if entry]


def target_names() -> list[str]:
    """Names in the user's folders and the catalog, sorted."""
    return sorted({path.stem for folder in (*own_folders(), _catalog()) for path in folder.glob("*.yaml")})


def is_file_name(name: str) -> bool:
    """Whether what a recipe names is a file instead of a name in the catalog."""
    return name.endswith((".yaml", ".yml"))


def load_target(name: str) -> Target:
    """Read one target.

    A file with `extends: NAME` takes from that target, beside it or in the catalog, what it does not say
    itself; sections such as `limits` are merged key by key.

    Args:
        name: in the user's folders or the catalog, the first that has it; or the path of a YAML file.

    Raises:
        RecipeError: no such target, or its description is not valid.
    """
    path = Path(name) if is_file_name(name) else _find(name)
    fields = _read(path, ())
    try:
        return Target.model_validate({"name": path.stem} | fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            "The target's description is not valid.",
            where=f"{path}{': ' + key if key else ''}",
            expected=first["msg"],
            got=str(first["input"])[:80],
            remedy=_REMEDY,
        ) from error


def _catalog() -> Path:
    return Path(str(resources.files("edgemill.targets")))


def _find(name: str, below: tuple[Path, ...] = ()) -> Path:
    for folder in (*own_folders(), _catalog()):
        if (path := folder / f"{name}.yaml").is_file() and path not in below:
            return path  # one's own file may extend the catalog's target of the same name
    near = difflib.get_close_matches(name, target_names(), n=3)
    raise RecipeError(
        "Unknown target.",
        where="targets",
        got=name,
        expected=", ".join(target_names()),
        remedy=f"did you mean {' or '.join(near)}?" if near else "`edgemill targets` lists them",
    )


def _read(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The fields of a description with those of what it extends."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError("There is no such target file.", where="targets", got=str(path)) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(
            "The target's description cannot be read.", where=str(path), got=" ".join(str(error).split())[:200]
        ) from error
    if not isinstance(fields, dict):
        raise RecipeError("The target's description is no YAML mapping.", where=str(path), remedy=_REMEDY)
    base = fields.pop("extends", None)
    if base is None:
        return fields
    readers = (*below, path)
    beside = path.parent / f"{base}.yaml"
    found = beside if beside.is_file() and beside not in readers else _find(str(base), readers)
    return _merged(_read(found, readers), fields)


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = {**before, **value} if both else value  # type: ignore[dict-item]
    return merged
