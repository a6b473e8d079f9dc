"""A data function of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.loading import split

FUNCTION = """
import numpy as np
import helper_of_my_data

def pair(n=100, classes=3):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, 4)), rng.integers(0, classes, n) + helper_of_my_data.ZERO

def parts():
    x, y = pair(100)
    return {"train": (x[:60], y[:60]), "validation": (x[60:80], y[60:80]), "test": (x[80:], y[80:])}

def leak():
    x, y = pair(50)
    return {"train": (x, y), "test": (x[:20], y[:20])}

def wrong():
    return 5

def fails():
    raise KeyError("no such thing")
"""


@pytest.fixture
def module(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_data.py").write_text(FUNCTION)
    (folder / "helper_of_my_data.py").write_text("ZERO = 0")
    return {"path": str(folder), "split": split()}
