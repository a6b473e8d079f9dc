"""What we start does not report home."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.runs import ROOT

PROGRAM = """
import sys
from pathlib import Path

import numpy as np

from edgemill.benchmark.profile_onnxruntime import empty_model
from edgemill.runtimes.onnxruntime import RUNTIME

RUNTIME.load(empty_model(np.zeros((1, 3), np.float32), Path(sys.argv[1])))
"""


def test_onnxruntime_writes_no_device_id_and_no_queue_of_events(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "m.onnx")],
        env=kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home / "cache")},
        check=True,
    )
    assert [path for path in home.rglob("*") if path.is_file()] == []
