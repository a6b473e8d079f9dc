"""How the step data.load splits, and the identity of what it read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.artifact import digest_path
from edgemill.data import SplitName, source_digest
from edgemill.data.split import split_indices
from edgemill.errors import DataError
from edgemill.recipe import Data, Split
from tests.data.loading import (
    CALIBRATION,
    TEST,
    TRAIN,
    VALIDATION,
    images,
    load,
    split,
    write_idx,
)


@settings(max_examples=200, deadline=None)
@given(
    total=st.integers(1, 400),
    validation=st.integers(1, 120),
    calibration=st.integers(1, 120),
    test=st.none() | st.integers(1, 120),
    own_test=st.none() | st.integers(1, 50),
    seed=st.integers(0, 2**40),
    inside=st.booleans(),
)
def test_splits_are_disjoint_complete_and_repeatable(
    total: int, validation: int, calibration: int, test: int | None, own_test: int | None, seed: int, inside: bool
) -> None:
    rule = Split(
        validation=max(validation, calibration) if inside else validation,
        calibration=calibration,
        test=test,
        seed=seed,
        calibration_within_validation=inside,
    )
    available = {TRAIN: total} | ({} if own_test is None else {TEST: own_test})
    taken = rule.validation + (0 if inside else calibration) + (test or 0 if own_test is None else 0)
    no_test = test is None and own_test is None
    if no_test or taken >= total or (own_test is not None and test not in (None, own_test)):
        with pytest.raises(DataError):
            split_indices(rule, available)
        return
    result = split_indices(rule, available)
    own = [indices for part, indices in result.values() if part is TRAIN]
    if inside:
        own = [indices for name, (part, indices) in result.items() if part is TRAIN and name is not CALIBRATION]
        assert set(result[CALIBRATION][1]) <= set(result[VALIDATION][1])
    assert sorted(np.concatenate(own)) == list(range(total))
    assert len(result[VALIDATION][1]) == rule.validation
    assert len(result[CALIBRATION][1]) == calibration
    assert len(result[TEST][1]) == (own_test if own_test is not None else test)
    again = split_indices(rule, available)
    assert all(np.array_equal(result[name][1], again[name][1]) for name in SplitName)


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    x, y = images()
    for name in ("a", "b"):
        write_idx(tmp_path / name, "train", x, y, zipped=False)

    def digest(folder: str) -> str:
        return source_digest(Data.model_validate({"source": "idx", "path": str(tmp_path / folder), "split": split()}))

    assert digest("a") == digest("b")
    victim = tmp_path / "b" / "train-labels-idx1-ubyte"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x01" if y[-1] != 1 else victim.read_bytes()[:-1] + b"\x02")
    assert digest("a") != digest("b")


def test_digest_of_a_function_counts_source_options_and_named_files(tmp_path: Path, module: dict[str, Any]) -> None:
    def digest(**options: Any) -> str:
        data = module | {"source": "python:my_data:pair", "options": options}
        return source_digest(Data.model_validate(data))

    (tmp_path / "code" / "table.csv").write_text("1,2")
    first, named = digest(), digest(table="table.csv")
    assert len({first, named, digest(n=3), digest(table="other.csv")}) == 4
    (tmp_path / "code" / "table.csv").write_text("1,3")
    assert digest() == first
    assert digest(table="table.csv") != named
    source = tmp_path / "code" / "my_data.py"
    source.write_text(f"{source.read_text()}\n# changed")
    assert digest() != first
    assert "my_data" not in sys.modules


def test_same_settings_give_the_same_artifact(tmp_path: Path) -> None:
    x, y = images()
    np.savez(tmp_path / "a.npz", x=x, y=y)
    digests = []
    for _ in range(2):
        load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split()})
        digests.append(digest_path(max(tmp_path.glob("out*"), key=lambda path: int(path.name[3:]))))
    assert digests[0] == digests[1]


def test_declaring_the_step_imports_nothing_heavy() -> None:
    code = (
        "import sys, edgemill.data as d; d.LOAD; d.source_digest; "
        "print([m for m in ('tensorflow', 'sklearn', 'PIL', 'pyarrow', 'onnxruntime', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_copies_of_test_samples_are_counted(tmp_path: Path) -> None:
    x, y = images()
    tx = np.concatenate([x[:3], images(20, seed=9)[0]])
    np.savez(tmp_path / "a.npz", x=x, y=y, x_test=tx, y_test=np.zeros(23, int))
    _, facts = load(tmp_path, {"source": "npz", "path": str(tmp_path / "a.npz"), "split": split(test=None)})
    assert facts["test_copies"] == 3
