"""A bundle whose writer was killed: the next writer starts afresh and clears up."""

from __future__ import annotations

import pytest

from edgemill.bundle import read_bundle, write_bundle
from tests.bundle.test_bundle import ORIGIN, TARGET, made

__all__ = ["made"]


@pytest.mark.parametrize("old_bundle_is_there", [True, False])
def test_a_killed_writer_stops_nobody_and_leaves_nothing(tmp_path, made, old_bundle_is_there):
    """Killed between its two renamings, or before the old bundle was removed."""
    result, files = made
    folder = tmp_path / "bundles" / TARGET.name
    if old_bundle_is_there:
        write_bundle(folder, result, TARGET, files, ORIGIN)
    for leftover in ("old", "abcd1234"):
        half = folder.parent / f".{folder.name}.{leftover}"
        half.mkdir(parents=True)
        (half / "plain.onnx").write_bytes(b"half")
    written = write_bundle(folder, result, TARGET, files, ORIGIN)
    assert read_bundle(folder) == written
    assert [path.name for path in folder.parent.iterdir()] == [TARGET.name]
