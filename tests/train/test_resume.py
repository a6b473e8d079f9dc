from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.train.digits import write_digits
from tests.train.killed_training import run

ROOT = Path(__file__).parents[2]
EPOCHS = 6


def test_a_killed_training_goes_on_from_its_last_epoch_to_the_same_bits(tmp_path):
    data, work = write_digits(tmp_path / "data"), tmp_path / "killed"
    command = [sys.executable, "-m", "tests.train.killed_training", str(data), str(work), str(EPOCHS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    snapshot = work / "resume" / "training.npz"
    deadline = time.monotonic() + 240
    while not snapshot.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert snapshot.exists()

    resumed, resumed_weights = run(data, work, EPOCHS)
    whole, whole_weights = run(data, tmp_path / "whole", EPOCHS)
    assert whole.resumed_from is None
    assert resumed.resumed_from is not None
    assert 1 <= resumed.resumed_from < EPOCHS
    for name in ("loss", "score", "learning_rate"):
        assert [epoch[name] for epoch in resumed.epochs] == [epoch[name] for epoch in whole.epochs]
    assert resumed.best_epoch == whole.best_epoch
    for a, b in zip(whole_weights, resumed_weights, strict=True):
        np.testing.assert_array_equal(a, b)

    finished, finished_weights = run(data, work, EPOCHS)
    assert finished.resumed_from == EPOCHS
    for a, b in zip(resumed_weights, finished_weights, strict=True):
        np.testing.assert_array_equal(a, b)
