"""Identity of the data that a recipe names, found without decoding it."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from edgemill.artifact import canonical_json, digest_path, digest_text
from edgemill.data.options import check_options
from edgemill.errors import DataError
from edgemill.recipe import Data
from edgemill.step import tool_versions


def source_digest(data: Data) -> str:
    """SHA-256 of the content behind a data source; part of the cache key of `data.load`.

    Files and folders: of their bytes and relative names. `sklearn:NAME`: of the name and the
    installed scikit-learn. `python:module:function`: of the module's file, the options, and the
    content of every file or folder that an option names (relative to `data.path`); other modules
    and files that the function reads do not count.

    Raises:
        RecipeError: wrong options.
        DataError: the file, folder or module is missing or cannot be read.
    """
    kind = check_options(data)
    if kind == "sklearn":
        return digest_text(canonical_json([data.source, tool_versions(("scikit-learn",))]))
    if kind == "python":
        return _function_digest(data)
    return _content(existing_path(data))


def existing_path(data: Data) -> Path:
    """The source's file or folder.

    Raises:
        DataError: there is none.
    """
    path = Path(data.path or "")
    if data.path is None or not path.exists():
        raise DataError(
            "The data is missing.",
            where="data.path",
            expected=f"a file or folder for source {data.source}",
            got=str(data.path),
            remedy="correct data.path; relative paths start at the recipe's folder",
        )
    return path


def module_file(data: Data) -> Path:
    """Source file of the module of a `python:` source, found without running any code.

    Raises:
        DataError: there is no such module.
    """
    module = data.source.split(":")[1]
    search: list[str] | None = None if data.path is None else [str(existing_path(data))]
    origin: str | None = None
    for index, part in enumerate(module.split(".")):
        spec = PathFinder.find_spec(".".join(module.split(".")[: index + 1]) if index else part, search)
        if spec is None:
            raise DataError(
                f"There is no module {module}.",
                where="data.source",
                got=f"looked in {data.path or 'the Python path'}",
                remedy="set data.path to the folder that holds the module, e.g. `path: .` for the recipe's own folder",
            )
        origin, search = spec.origin, list(spec.submodule_search_locations or ())
    if origin is None or not Path(origin).is_file():
        raise DataError(f"The module {module} is not a Python file.", where="data.source", got=str(origin))
    return Path(origin)


def _function_digest(data: Data) -> str:
    base = Path(data.path) if data.path is not None else Path()
    files = {}
    for key, value in sorted(data.options.items()):
        if isinstance(value, str) and value and "\0" not in value and (base / value).exists():
            files[key] = _content(base / value)
    return digest_text(canonical_json([data.source, _content(module_file(data)), data.options, files]))


def _content(path: Path) -> str:
    try:
        return digest_path(path)
    except OSError as error:
        raise DataError("The data cannot be read.", where=str(path), got=str(error)) from error
