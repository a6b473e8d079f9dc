"""The step data.load on a function of the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edgemill.errors import DataError
from tests.data.loading import (
    load,
    split,
)


def test_function_with_arguments_and_clean_up(tmp_path: Path, module: dict[str, Any]) -> None:
    before = (list(sys.path), set(sys.modules))
    ds, _ = load(tmp_path, module | {"source": "python:my_data:pair", "options": {"n": 200, "classes": 2}})
    assert sum(ds.sizes.values()) == 200
    assert ds.classes == 2
    assert sys.path == before[0]
    assert not {"my_data", "helper_of_my_data"} & set(sys.modules)


def test_function_with_own_splits(tmp_path: Path, module: dict[str, Any]) -> None:
    data = module | {"source": "python:my_data:parts"}
    ds, _ = load(tmp_path, data | {"split": split(test=None)})
    assert ds.sizes == {"train": 50, "calibration": 10, "validation": 20, "test": 20}
    with pytest.raises(DataError, match="own test split") as caught:
        load(tmp_path, data | {"split": split(test=30)})
    assert "data.split.test: 20" in str(caught.value)


@pytest.mark.parametrize(
    ("function", "words"),
    [("leak", "in another split"), ("wrong", "something else"), ("fails", "failed"), ("absent", "no function")],
)
def test_function_refusals(tmp_path: Path, module: dict[str, Any], function: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load(tmp_path, module | {"source": f"python:my_data:{function}", "split": split(test=None)})
    with pytest.raises(DataError, match="no module"):
        load(tmp_path, module | {"source": "python:no_such_module:f"})
