"""The targets of these compilers: what reaches them, where they answer, and what is missing."""

from __future__ import annotations

import platform

import numpy as np
import pytest

from edgemill.compile.backend import BACKENDS
from edgemill.compile.route import Refusal, Route
from edgemill.emulate.executor import Guest
from edgemill.emulate.host import Host, this_host
from edgemill.emulate.machine import how_executed, target_lacks
from edgemill.lack import told
from edgemill.recipe import Recipe, Scheme
from edgemill.targets import load_target
from edgemill.targets.capability import blockers
from edgemill.toolchains import load_toolchain
from tests.compilers import compiler_graphs as graphs
from tests.compilers.conftest import in_onnxruntime

X86 = Host(arch="x86_64", features=("avx2",), emulators={"qemu-aarch64": "7.2"}, sysroots={"aarch64": "ab" * 32})
NAMES = {"ncnn": "ncnn-mobile", "tvm": "tvm-cpu", "iree": "raspberry-pi-5-iree"}


def recipe():
    return Recipe.model_validate(
        {
            "name": "r",
            "checkpoint": {"path": "m.keras"},
            "data": {"source": "npz", "path": "d.npz", "split": {"validation": 10, "calibration": 10, "seed": 1}},
            "targets": ["x86-64-vnni"],
        }
    )


def route(backend, scheme):
    target = load_target(NAMES[backend])
    return BACKENDS[backend].route(scheme, frozenset({"onnx"}), target, recipe())


@pytest.mark.parametrize("scheme", [Scheme.INT8_STATIC, Scheme.INT8_QAT, Scheme.INT8_DYNAMIC, Scheme.INT8_MIXED])
def test_quantized_graphs_do_not_reach_ncnn_and_the_reason_is_named(scheme):
    refusal = route("ncnn", scheme)
    assert isinstance(refusal, Refusal)
    assert "QuantizeLinear" in refusal.reason
    assert "fp16" in refusal.remedy


def test_half_precision_of_ncnn_starts_from_the_fp32_graph():
    assert route("ncnn", Scheme.FP16) == route("ncnn", None) == Route(None, None)


@pytest.mark.parametrize("backend", ["tvm", "iree"])
def test_quantized_graphs_reach_the_others(backend):
    found = route(backend, Scheme.INT8_STATIC)
    assert isinstance(found, Route)
    assert found.step.name == "quantize.static"
    assert isinstance(route(backend, Scheme.FP16), Refusal)


def with_runtimes(host, *names):
    versions = {}
    for toolchain in ("ncnn", "iree"):
        versions |= load_toolchain(toolchain).versions(names)
    return host.model_copy(update={"distributions": {"aarch64": versions}})


@pytest.mark.parametrize(("name", "runtime"), [("ncnn-mobile", "ncnn"), ("raspberry-pi-5-iree", "iree-base-runtime")])
def test_a_sysroot_without_the_runtime_is_named_with_its_command(name, runtime):
    target = load_target(name)
    lacks = target_lacks(target, X86)
    assert len(lacks) == 1
    assert runtime in lacks[0].what
    assert lacks[0].command == "edgemill sysroot aarch64"
    machine = how_executed(target, X86)
    assert machine.source == "proxy:x86_64-host"
    assert machine.toolchain == target.execution.toolchain
    whole = with_runtimes(X86, runtime)
    assert target_lacks(target, whole) == []
    machine = how_executed(target, whole)
    assert machine.source == "emulated:qemu-aarch64"
    assert machine.emulation.cpu == "cortex-a76"
    old = X86.model_copy(update={"distributions": {"aarch64": {runtime: "0.1"}}})
    assert how_executed(target, old).source == "proxy:x86_64-host"


def test_foreign_machine_code_is_not_timed_and_needs_the_emulator(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    target = load_target("raspberry-pi-5-iree")
    assert not target.timed
    assert load_target("tvm-cpu").timed
    assert load_target("ncnn-mobile").timed  # its files are for every CPU
    monkeypatch.setenv("EDGEMILL_SYSROOTS", str(tmp_path))
    assert any("sysroot" in lack.name for lack in blockers(target))
    assert not any("sysroot" in lack.name for lack in blockers(load_target("ncnn-mobile")))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert target.timed
    assert not load_target("tvm-cpu").timed


def test_riscv_is_compiled_and_never_answered():
    machine = how_executed(load_target("riscv64-iree"), X86)
    assert machine.source == "unexecuted"
    assert "riscv64" in machine.reason


def test_raspberry_pi_4_is_its_elder_sister_with_another_cpu():
    four, five = load_target("raspberry-pi-4"), load_target("raspberry-pi-5")
    assert how_executed(four, X86).emulation.cpu == "cortex-a72"
    assert (four.runtime, four.opset, four.int8) == (five.runtime, five.opset, five.int8)
    assert four.power.active_w < five.power.active_w
    assert "Raspberry Pi 4" in four.power.source
    assert "fp16" not in four.formats


def emulated(name):
    target = load_target(name)
    if how_executed(target).emulation is None:
        pytest.skip(f"{name} is not emulated here: {told(target_lacks(target)) or 'it is native'}")
    return target


def test_the_emulated_raspberry_pi_4_has_neither_dot_products_nor_half_precision():
    with Guest(emulated("raspberry-pi-4").emulation) as guest:
        assert guest.hello.machine == "aarch64"
        assert "asimd" in guest.hello.features
        assert not {"asimddp", "asimdhp", "fphp"} & set(guest.hello.features)


@pytest.mark.parametrize(("backend", "scheme"), [("ncnn", None), ("ncnn", Scheme.FP16), ("iree", None)])
def test_the_file_that_ships_answers_in_the_emulated_cpu(bench, backend, scheme):
    target = emulated(NAMES[backend])
    bench.target(backend)  # skips where the toolchain is not there
    record = bench.compiled(target, "residual", scheme)
    x = graphs.samples("residual", 6, seed=9)
    wanted = in_onnxruntime(bench.source("residual"), x)
    with Guest(target.emulation) as guest:
        answer = guest.predict(bench.path(record), backend, x)
    tolerance = 1e-5 if scheme is None else 2e-2 * float(np.ptp(wanted))
    assert np.abs(answer - wanted).max() < tolerance
    if scheme is not None:
        assert np.abs(answer - wanted).max() > 0
    if backend == "iree" and this_host().arch != "aarch64":
        assert record.facts["device"]["flash_bytes"] == record.facts["size_bytes"]
