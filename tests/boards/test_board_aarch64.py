"""A board of another architecture behind a real SSH server: its interpreter is an ARM one in qemu-user."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import edgemill
from edgemill.boards import BoardSettings
from edgemill.boards.contact import look
from edgemill.boards.measure import measure
from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate import wheels
from edgemill.emulate.machine import emulation_lacks
from edgemill.emulate.places import read_sysroot
from edgemill.recipe import Benchmark
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from tests.boards.sshd import needs_sshd
from tests.runtimes import models

pytestmark = [needs_sshd, pytest.mark.slow]

TARGET = load_target("raspberry-pi-5")
FURTHER = ("psutil", "pyyaml")
"""What a board has beside what an emulated CPU needs."""

FEATURES = """
from edgemill.emulate.guest import hardware_features
print(" ".join(hardware_features()))
"""


@pytest.fixture
def python(tmp_path):
    """A program that is a Python of the target's CPU, whoever calls it."""
    emulation = TARGET.emulation
    lacks = emulation_lacks(emulation)
    if lacks:
        pytest.skip("; ".join(map(str, lacks)))
    sysroot = read_sysroot("aarch64")
    site = tmp_path / "site"
    wanted = {name: metadata.version(name) for name in FURTHER}
    site.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wheels, "DISTRIBUTIONS", tuple(wanted))
        wheels.install("aarch64", site, tmp_path)
    prefix = tmp_path / "prefix"
    (prefix / "proc").mkdir(parents=True)
    for entry in (sysroot.folder / "root").iterdir():
        (prefix / entry.name).symlink_to(entry.resolve())
    interpreter = sysroot.folder.resolve() / "root" / "usr" / "bin" / f"python{sysroot.manifest.python}"
    call = shlex.join([shutil.which(emulation.emulator), "-L", str(prefix), "-cpu", emulation.cpu, str(interpreter)])
    path = f"{sysroot.folder.resolve()}/site:{site}"
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexport PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{path}"\nexec {call} -s -S "$@"\n')
    script.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(Path(edgemill.__file__).parents[1])}
    told = subprocess.run([str(script), "-c", FEATURES], capture_output=True, text=True, check=True, env=environment)
    (prefix / "proc" / "cpuinfo").write_text(
        f"processor\t: 0\nFeatures\t: {told.stdout.strip()}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        "CPU variant\t: 0x0\nCPU part\t: 0xd0b\nCPU revision\t: 3\n\n"
    )
    return script


def test_a_foreign_architecture_answers(lab, python, files, tmp_path):
    board, _ = lab.board("pi", target="raspberry-pi-5", python=str(python), emulated=True, lease_s=120)
    told = look(board)
    assert told.arch == "aarch64"
    assert "asimddp" in told.features
    x = Dataset(files["data"].path).features(SplitName.TEST)
    variant = models.input_file(models.dense_uint8_onnx(tmp_path / "v.onnx"), "onnx")
    rule = Benchmark(rounds=8, runs_per_round=4, time_budget_s=2)
    settings = BoardSettings(target=TARGET, benchmark=rule, answer=SplitName.TEST)
    (tmp_path / "out").mkdir()
    answer = measure(board, settings, files | {"variant": variant}, tmp_path / "out", lambda *_: None)
    assert answer.signed.host["arch"] == "aarch64"
    assert answer.signed.host["cpu"].startswith("0x41 8")
    assert answer.signed.facts["latency_p50_ms"] > 0
    assert board.source == "emulated:board:pi"
    np.testing.assert_array_equal(np.load(answer.files["predictions.npy"]), open_model(variant.path, "onnx").predict(x))
