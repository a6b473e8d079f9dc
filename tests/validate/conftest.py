"""Functions of the user's, written where a recipe's are found."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a module of the user's, found as the worker's search path finds it."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def write(name: str, body: str) -> str:
        (tmp_path / f"{name}.py").write_text(f"import numpy as np\n{body}\n")
        return f"python:{name}:f"

    return write


@pytest.fixture
def own_metric(own):
    return own(
        "own_metric",
        "def share_right(outputs, labels):\n    return (outputs.argmax(1) == labels).mean()\n"
        "def error(outputs, labels):\n    return 1 - share_right(outputs, labels)\n"
        "def slow(outputs, labels):\n    import time; time.sleep(0.01); return 1.0\n"
        "def undefined(outputs, labels):\n    return float('nan') if outputs[0, 0] < 0.5 else 1.0\n"
        "def wrong(outputs, labels):\n    return 'good'\n"
        "def vandal(outputs, labels):\n    outputs[:] = 0; labels[:] = 0; return 1.0\n"
        "def picky(outputs, labels):\n    return 1.0 if len(set(labels)) == 4 else float('nan')\n",
    )
