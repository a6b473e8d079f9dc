"""A recipe's own python functions: where they are found, and what their source adds to a cache key."""

from __future__ import annotations

from pathlib import Path

from edgemill.artifact import digest_path
from edgemill.errors import RecipeError
from edgemill.recipe import Recipe

_PREFIX = "python:"


def search_path(function: str | None, folder: Path) -> tuple[str, ...]:
    """The folder of a function's module, and nothing where the recipe names no function.

    A folder with an untrusted checkpoint must not become a place from which modules are imported.
    """
    return (str(folder),) if _names_function(function) else ()


def function_identity(function: str | None, folder: Path) -> dict[str, str]:
    """Digest of the source file of `python:module:function`; other files that it imports do not count.

    Raises:
        RecipeError: there is no such file.
    """
    if function is None or not _names_function(function):
        return {}
    module = function.removeprefix(_PREFIX).partition(":")[0]
    source = folder.joinpath(*module.split(".")).with_suffix(".py")
    if not source.is_file():
        raise RecipeError(
            "The module of a function is missing.",
            where=function,
            expected=str(source),
            remedy="put it beside the checkpoint",
        )
    return {function: digest_path(source)}


def of_gates(recipe: Recipe) -> tuple[dict[str, str], tuple[str, ...]]:
    """Identities and folders of all functions that the recipe's gates call, for a step that judges.

    Raises:
        RecipeError: the module of one is missing.
    """
    folder, functions = Path(recipe.checkpoint.path).parent, recipe.gates.functions
    identities = {name: digest for item in functions for name, digest in function_identity(item, folder).items()}
    return identities, tuple(dict.fromkeys(path for item in functions for path in search_path(item, folder)))


def _names_function(function: str | None) -> bool:
    return function is not None and function.startswith(_PREFIX)
