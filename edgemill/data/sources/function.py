"""Data from the user's own Python function."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgemill.data.dataset import SplitName
from edgemill.data.digest import module_file
from edgemill.data.source import Part, Source
from edgemill.errors import DataError
from edgemill.recipe import Data

_EXPECTED = "(x, y), (x, None), or a mapping of train, validation, calibration, test to such pairs"


def read(data: Data) -> Source:
    """Call `function(**data.options)` of `python:module:function`.

    The module is looked up in `data.path` (the recipe's folder with `path: .`), else on the
    Python path.

    Raises:
        DataError: no such module or function, it raised, or it returned something else than
            (x, y), (x, None) or a mapping from split to such a pair.
    """
    _, module, name = data.source.split(":")
    module_file(data)
    with _search_path(data.path):
        try:
            function = getattr(importlib.import_module(module), name, None)
            if not callable(function):
                raise DataError(f"The module {module} has no function {name}.", where="data.source", got=data.source)
            answer = function(**data.options)
        except DataError:
            raise
        # The user's own code may raise anything.
        except Exception as error:
            raise DataError(
                "The data function failed.",
                where=data.source,
                got=f"{type(error).__name__}: {error}",
                remedy="call it by hand with the arguments in data.options",
            ) from error
    pairs = answer if isinstance(answer, Mapping) else {"train": answer}
    unknown = sorted(str(key) for key in pairs if str(key) not in set(SplitName))
    if unknown or "train" not in {str(key) for key in pairs}:
        raise DataError(
            "The data function returned the wrong splits.",
            where=data.source,
            expected="train, and any of validation, calibration, test",
            got=", ".join(str(key) for key in pairs) or "an empty mapping",
        )
    return Source({SplitName(str(key)): _part(pair, f"{data.source} ({key})") for key, pair in pairs.items()})


def _part(pair: Any, where: str) -> Part:
    match pair:
        case (samples, labels):
            pass
        case _:
            raise DataError(
                "The data function returned something else than data.",
                where=where,
                expected=_EXPECTED,
                got=type(pair).__name__,
            )
    try:
        x, y = (None if item is None else np.asarray(item) for item in (samples, labels))
    except ValueError as error:
        raise DataError("The samples do not form one array.", where=where, got=str(error)) from error
    if x is None:
        raise DataError("The data function returned no samples.", where=where, expected=_EXPECTED, got="None")
    return Part(x, y, where)


@contextmanager
def _search_path(folder: str | None) -> Iterator[None]:
    """Import from `folder` first, and forget its modules afterwards: the process is used again."""
    if folder is None:
        yield
        return
    before = set(sys.modules)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
        root = Path(folder).resolve()
        for name in set(sys.modules) - before:
            origin = getattr(sys.modules[name], "__file__", None)
            if origin is not None and Path(origin).resolve().is_relative_to(root):
                del sys.modules[name]
