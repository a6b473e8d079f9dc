"""Calling a function that the recipe names as python:module:function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemill.errors import EdgemillError, RecipeError


def load_function(function: str, where: str) -> Callable[..., Any]:
    """Find `python:module:function`; the module is found on the step's search path.

    The module is forgotten again: the process goes on to other recipes, and the file may change.

    Args:
        function: its name.
        where: key of the recipe, for error texts.

    Raises:
        RecipeError: there is no such module or function, or importing it raised.
    """
    _, module, name = function.split(":")
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # the user's own code may raise anything
        raise _failed(function, where, error) from error
    finally:
        _forget(set(sys.modules) - before, module)
    if not callable(found):
        raise RecipeError(f"The module {module} has no function {name}.", where=where, got=function)
    return found  # type: ignore[no-any-return]


def call_function(function: str, where: str, *arguments: Any) -> Any:
    """Call `python:module:function`.

    Raises:
        RecipeError: it is missing or raises.
    """
    found = load_function(function, where)
    try:
        return found(*arguments)
    except EdgemillError:
        raise
    except Exception as error:
        raise _failed(function, where, error) from error


def _failed(function: str, where: str, error: Exception) -> RecipeError:
    return RecipeError(
        "The recipe's own function failed.",
        where=where,
        got=f"{function}: {type(error).__name__}: {error}",
        remedy="put its module beside the checkpoint, and call it by hand with arrays of the stated shapes",
    )


def _forget(imported: set[str], module: str) -> None:
    origin = getattr(sys.modules.get(module), "__file__", None)
    if origin is None or module not in imported:
        return
    folder = Path(origin).resolve().parents[module.count(".")]
    package = module.partition(".")[0]
    for name in imported:
        file = getattr(sys.modules.get(name), "__file__", None)
        beside = file is not None and Path(file).resolve().parent == folder
        if beside or name.partition(".")[0] == package:
            sys.modules.pop(name, None)
