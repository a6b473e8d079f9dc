"""A small network whose uint8 x int8 products saturate in 16 bits, and data for it."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.compile import CompileSettings
from edgemill.compile import onnxruntime as compiler
from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.emulate.host import Host
from edgemill.quantize import StaticSettings, static
from edgemill.recipe import Preprocess, Scheme
from edgemill.step import InputFile, StepContext
from edgemill.targets import load_target

AVX2 = load_target("x86-64-avx2")
ARM = load_target("raspberry-pi-5")
ANDROID = load_target("android-arm64")
VNNI = load_target("x86-64-vnni")

EMULATORS = {"qemu-x86_64": "7.2.22", "qemu-aarch64": "7.2.22"}
ROOTS = {"aarch64": "ab" * 32}
SERVER = Host(arch="x86_64", features=("avx2", "avx512_vnni"), emulators=EMULATORS, sysroots=ROOTS)
OLD_SERVER = SERVER.model_copy(update={"features": ("avx2", "fma")})
BOARD = Host(arch="aarch64", features=("asimddp",), emulators=EMULATORS)
BARE = Host(arch="x86_64", features=("avx2", "avx512_vnni"))

CLASSES = 4
HERE_IS_X86 = platform.machine() == "x86_64"

needs_x86_emulator = pytest.mark.skipif(
    not (HERE_IS_X86 and shutil.which("qemu-x86_64")),
    reason="needs an x86-64 machine with qemu-x86_64: apt-get install qemu-user",
)
needs_sysroot_tools = pytest.mark.skipif(
    not (shutil.which("qemu-aarch64") and shutil.which("apt-get") and shutil.which("dpkg-deb")),
    reason="needs qemu-aarch64, apt-get and dpkg-deb: apt-get install qemu-user, on Debian or Ubuntu",
)


def as_input(path: Path, kind: str) -> InputFile:
    artifact = Artifact(digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="test")
    return InputFile(path, artifact)


def context(folder: Path, messages: list | None = None) -> StepContext:
    (folder / "out").mkdir(parents=True)
    (folder / "resume").mkdir()
    return StepContext(
        folder / "out", folder / "resume", 0, lambda *told: None if messages is None else messages.append(told)
    )


def bright_net(path: Path) -> Path:
    """Two convolutions whose weights have one sign a filter, so that products of bright pixels add up."""
    rng = np.random.default_rng(3)

    def weights(out: int, into: int, size: int) -> np.ndarray:
        signs = rng.choice([-1.0, 1.0], (out, 1, 1, 1))
        return (signs * rng.uniform(0.6, 1.0, (out, into, size, size)) / (into * size)).astype(np.float32)

    first = weights(8, 1, 3)
    first[::2] = np.abs(first[::2])
    constants = {
        "w1": first,
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": weights(8, 8, 3),
        "b2": rng.normal(0, 0.5, 8).astype(np.float32),
        "w3": rng.normal(0, 1, (8, CLASSES)).astype(np.float32),
        "b3": np.zeros(CLASSES, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="first_relu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second"),
        helper.make_node("Relu", ["c2"], ["r2"], name="second_relu"),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def bright_data(folder: Path) -> InputFile:
    rng = np.random.default_rng(5)
    sizes = {SplitName.TRAIN: 4, SplitName.VALIDATION: 40, SplitName.CALIBRATION: 40, SplitName.TEST: 60}
    x = {split: rng.integers(60, 256, (count, 1, 8, 8), dtype=np.uint8) for split, count in sizes.items()}
    y = {split: rng.integers(0, CLASSES, count).astype(np.int64) for split, count in sizes.items()}
    folder.mkdir(parents=True)
    write_dataset(folder, x, y, Preprocess(scale=255))
    assert Dataset(folder).classes == CLASSES
    return as_input(folder, "dataset")


def quantized(folder: Path, fp32: InputFile, data: InputFile, target=AVX2, **int8) -> InputFile:
    """The network in 8 bits, compiled for a target; `int8` changes the target's arithmetic."""
    settings = StaticSettings(int8=target.int8.model_copy(update=int8))
    made = static.run(settings, {"onnx": fp32, "data": data}, context(folder / "quantize")).files["onnx"]
    inputs = {"model": as_input(made.path, "onnx"), "data": data}
    compiled = compiler.run(
        CompileSettings(target=target, scheme=Scheme.INT8_STATIC), inputs, context(folder / "compile")
    )
    return as_input(compiled.files["model"].path, "onnx")
