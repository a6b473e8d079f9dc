"""Compiled tiny models, one store for all tests of this folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.execute import Call, execute, release_workers
from edgemill.lack import told
from edgemill.store import Store
from edgemill.targets import load_target
from edgemill.toolchains import installed
from tests.compilers import compiler_graphs
from tests.runtimes.models import dataset

HERE = Path(__file__).parent


class Bench:
    """Compiles and asks; what was made once is kept."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.store = Store(folder / "store")

    def target(self, backend: str):
        """A target of a backend whose files run on this machine, or a skip that says what is missing."""
        name = {"ncnn": "ncnn-mobile", "tvm": "tvm-cpu", "iree": "riscv64-iree"}[backend]
        for toolchain in load_target(name).toolchains:
            if lacks := installed(toolchain).lacks:
                pytest.skip(f"{name}: {told(lacks)}")
        if backend == "tvm" and platform.machine() != "x86_64":
            pytest.skip(f"{name}: this machine is {platform.machine()}")
        if backend != "iree":
            return load_target(name)
        own = self.folder / "here-iree.yaml"  # the catalog's target, but with code for this machine
        own.write_text(
            yaml.safe_dump(
                {
                    "extends": name,
                    "arch": platform.machine(),
                    "execution": {"by": "runtime", "toolchain": "iree"},
                    "llvm": {
                        "triple": f"{platform.machine()}-unknown-linux-gnu",
                        "cpu": "generic",
                        "features": [],
                        "abi": None,
                    },
                }
            )
        )
        return load_target(str(own))

    def source(self, structure: str) -> Path:
        path = self.folder / f"{structure}.onnx"
        return path if path.exists() else compiler_graphs.write(structure, path)

    def data(self, structure: str) -> Path:
        path = self.folder / f"data-{structure}"
        return path if path.exists() else dataset(path, compiler_graphs.samples(structure, 20))

    def quantized(self, structure: str) -> Path:
        """The QDQ form of a structure, made by onnxruntime."""
        path = self.folder / f"{structure}-int8.onnx"
        if not path.exists():
            rows = iter([{self._entry(structure): compiler_graphs.samples(structure, 8, seed)} for seed in range(4)])

            class Reader(CalibrationDataReader):
                def get_next(self):
                    return next(rows, None)

            quantize_static(self.source(structure), path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
        return path

    def _entry(self, structure: str) -> str:
        return onnx.load(self.source(structure)).graph.input[0].name

    def compile(self, target, source: Path, data: Path, scheme=None):
        """Record of the compile step; it runs in the toolchain's environment as in a run."""
        given = {
            name: self.store.put(path, kind=kind, step="test")
            for name, path, kind in (("model", source, "onnx"), ("data", data, "dataset"))
        }
        settings = CompileSettings(target=target.essence, scheme=scheme)
        call = Call(backend_of(target).step, settings, given, toolchain=target.toolchain)
        return execute(self.store, call, lambda *_: None).record

    def compiled(self, target, structure: str, scheme=None):
        return self.compile(target, self.source(structure), self.data(structure), scheme)

    def path(self, record) -> Path:
        return self.store.path(record.outputs["model"])

    def ask(self, toolchain: str, *arguments) -> dict:
        """Run adapter_child.py in the environment of a toolchain."""
        alone = self.folder / "alone"
        if not alone.exists():
            alone.mkdir()
            (alone / "edgemill").symlink_to(HERE.parents[1] / "edgemill")
        done = subprocess.run(
            [installed(toolchain).python, HERE / "adapter_child.py", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(alone)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    yield Bench(tmp_path_factory.mktemp("compilers"))
    release_workers()


def in_onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]
