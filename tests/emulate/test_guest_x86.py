"""A CPU without VNNI in qemu-x86_64: the guest, the divergence it shows, and the cures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate import executor
from edgemill.emulate.answering import open_on
from edgemill.emulate.cure import Cure, cures, treat
from edgemill.emulate.executor import Guest, guest_of
from edgemill.emulate.machine import Machine, how_executed, reference
from edgemill.errors import DataError, InvariantError, ToolchainError
from edgemill.execute import Call, execute, release_workers
from edgemill.quantize import StaticSettings
from edgemill.recipe import Task
from edgemill.store import Store
from edgemill.targets.cpu import cpu_features
from edgemill.targets.spec import Emulation
from edgemill.validate import PREDICT, PredictSettings
from edgemill.validate.divergence import DIVERGENCE, Closeness, Divergence, DivergenceSettings
from edgemill.validate.divergence_step import run as diverge
from edgemill.validate.predict import run as predict
from tests.emulate.models import AVX2, CLASSES, as_input, context, needs_x86_emulator

pytestmark = needs_x86_emulator

HASWELL = AVX2.emulation
ON_HASWELL = Machine(source="emulated:qemu-x86_64", identity="test", emulation=HASWELL, reason="test")


@pytest.fixture
def guest():
    return guest_of(HASWELL)


@pytest.fixture(scope="module", autouse=True)
def _no_guest_is_left():
    yield
    executor.release_guests()


@pytest.fixture
def x(data):
    return Dataset(data.path).features(SplitName.VALIDATION)


def test_guest_is_the_cpu_it_should_be(guest):
    assert guest.hello.machine == "x86_64"
    assert "avx2" in guest.hello.features
    assert not [name for name in guest.hello.features if name.startswith("avx512")]
    assert guest.hello.versions["onnxruntime"] != "absent"


def test_floats_differ_by_rounding_at_most(guest, fp32, x):
    here = open_on(reference(), fp32.path, "onnx").predict(x)
    there = guest.predict(fp32.path, "onnx", x)
    assert there.shape == (len(x), CLASSES)
    assert there.dtype == np.float32
    assert np.abs(here - there).max() < 1e-5


def test_saturation_is_there_and_exact_kernels_take_it_away(guest, forms, x):
    exact = open_on(reference(), forms["u8s8"].path, "onnx").predict(x)
    saturated = guest.predict(forms["u8s8"].path, "onnx", x)
    assert np.abs(saturated - exact).max() > 0.05 * np.ptp(exact)
    assert np.array_equal(guest.predict(forms["u8s8"].path, "onnx", x, exact=True), exact)


def test_portions_do_not_change_answers(guest, forms, x, monkeypatch):
    whole = guest.predict(forms["reduce_range"].path, "onnx", x)
    assert np.array_equal(open_on(ON_HASWELL, forms["reduce_range"].path, "onnx").predict(x), whole)
    assert open_on(ON_HASWELL, forms["reduce_range"].path, "onnx").predict(x[:0]).shape == (0, CLASSES)


def test_errors_of_the_adapter_arrive_as_they_are(guest, fp32, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ToolchainError, match="cannot load"):
        guest.predict(broken, "onnx", np.zeros((1, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="shape"):
        guest.predict(fp32.path, "onnx", np.zeros((1, 5), np.float32))
    with pytest.raises(ToolchainError, match="No runtime"):
        guest.predict(fp32.path, "gguf", np.zeros((1, 5), np.float32))
    with pytest.raises(InvariantError, match="no such operation"):
        guest._ask("dance", 10)
    assert guest.alive


def test_a_changed_file_is_loaded_anew(guest, forms, fp32, x, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(fp32.path.read_bytes())
    first = guest.predict(path, "onnx", x[:2])
    path.write_bytes(forms["u8u8"].path.read_bytes())
    assert not np.array_equal(guest.predict(path, "onnx", x[:2]), first)


def test_a_dead_guest_is_an_error_and_the_next_one_is_new(fp32, x):
    first = guest_of(HASWELL)
    assert guest_of(HASWELL) is first
    first._process.kill()
    with pytest.raises(ToolchainError, match="died") as error:
        first.predict(fp32.path, "onnx", x[:1])
    assert "-9" in error.value.got
    assert not first.alive
    assert guest_of(HASWELL).predict(fp32.path, "onnx", x[:1]).shape == (1, CLASSES)


def test_a_guest_that_does_not_answer_is_stopped(fp32, x, monkeypatch):
    monkeypatch.setattr(executor, "REQUEST_LIMIT_S", 1.0)
    with Guest(HASWELL) as slow:
        process = psutil.Process(slow._process.pid)
        process.suspend()
        with pytest.raises(ToolchainError, match="in time"):
            slow.predict(fp32.path, "onnx", x[:1])
        assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_an_emulator_that_cannot_start_tells_its_last_words():
    with pytest.raises(ToolchainError, match="died") as error:
        Guest(Emulation(emulator="qemu-x86_64", cpu="NoSuchCpu"))
    assert "NoSuchCpu" in error.value.got


def test_a_missing_emulator_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolchainError, match="cannot be emulated") as error:
        Guest(HASWELL)
    assert "apt-get install qemu-user" in error.value.remedy


def test_guest_dies_with_its_parent(tmp_path):
    script = textwrap.dedent("""
        import sys, time
        from edgemill.emulate.executor import guest_of
        from edgemill.targets import load_target
        print(guest_of(load_target("x86-64-avx2").emulation)._process.pid, flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert list(tmp_path.glob("edgemill-guest-*")) == []


def probe(file, data, folder, machine=ON_HASWELL) -> Divergence:
    settings = DivergenceSettings(machine=machine, samples=24, traced=3)
    facts = diverge(settings, {"model": file, "data": data}, context(folder)).facts
    return Divergence.model_validate(facts)


def test_divergence_names_the_first_layer(forms, data, tmp_path):
    found = probe(forms["u8s8"], data, tmp_path / "plain")
    assert found.output.closeness is Closeness.PARTED
    assert not found.close
    assert found.faithful
    assert found.first.operator == "QLinearConv"
    assert found.first.dtype == "uint8"
    assert found.first.difference.closeness is Closeness.PARTED
    for form in ("reduce_range", "u8u8"):
        cure = probe(forms[form], data, tmp_path / form)
        assert cure.output.closeness is Closeness.EQUAL, form
        assert cure.first is None


def test_floats_part_nowhere(fp32, data, tmp_path):
    found = probe(fp32, data, tmp_path / "fp32")
    assert found.close


def test_the_cure_is_found(forms, data, tmp_path):
    made = {Cure.NONE: "u8s8", Cure.REDUCE_RANGE: "reduce_range", Cure.UINT8_WEIGHTS: "u8u8"}
    options = cures(AVX2, StaticSettings(int8=AVX2.int8))
    treatment = treat(
        options,
        ON_HASWELL,
        make=lambda cure: made[cure],
        probe=lambda form: probe(forms[form], data, tmp_path / form),
    )
    assert treatment.made == "reduce_range"
    assert [trial.cure for trial in treatment.trials] == [Cure.NONE, Cure.REDUCE_RANGE]
    assert treatment.divergence.output.equal_rows == 1.0


def test_predictions_say_in_which_arithmetic_they_were_made(forms, data, tmp_path):
    def answers(machine, name):
        settings = PredictSettings(split=SplitName.TEST, task=Task.CLASSIFICATION, machine=machine)
        out = predict(settings, {"model": forms["u8s8"], "data": data}, context(tmp_path / name))
        return np.load(out.files["predictions"].path), out.facts

    emulated, facts = answers(ON_HASWELL, "emulated")
    assert (facts["source"], facts["reason"], facts["samples"]) == ("emulated:qemu-x86_64", "test", 60)
    native, facts = answers(None, "native")
    assert (facts["source"], facts["reason"]) == ("measured:native", "")
    if cpu_features() & {"avx512_vnni", "avx_vnni"}:
        assert not np.array_equal(emulated, native)
        assert how_executed(AVX2).source == "emulated:qemu-x86_64"


def test_an_untraceable_graph_still_has_its_outputs_compared(forms, data, tmp_path, monkeypatch):
    def refuse(*_):
        raise ToolchainError("this graph cannot be read")

    monkeypatch.setattr("edgemill.validate.divergence_step.tap", refuse)
    found = probe(as_input(forms["u8s8"].path, "onnx"), data, tmp_path / "probe")
    assert found.output.closeness is Closeness.PARTED
    assert found.first is None
    assert "not traced: this graph cannot be read" in found.note


def test_steps_run_in_a_child_process_and_are_cached_by_machine(forms, data, state):
    store = Store(state)
    given = {
        name: store.put(file.path, kind=file.artifact.kind, step="test", parents=(), signature=None, facts={})
        for name, file in (("model", forms["u8s8"]), ("data", data))
    }

    def done(step, settings):
        return execute(store, Call(step, settings, given), lambda *_: None)

    try:
        first = done(DIVERGENCE, DivergenceSettings(machine=ON_HASWELL, samples=8, traced=2))
        assert not Divergence.model_validate(first.record.facts).close
        assert done(DIVERGENCE, DivergenceSettings(machine=ON_HASWELL, samples=8, traced=2)).cached
        elsewhere = ON_HASWELL.model_copy(update={"identity": "qemu-x86_64 99"})
        assert not done(DIVERGENCE, DivergenceSettings(machine=elsewhere, samples=8, traced=2)).cached
        settings = PredictSettings(split=SplitName.VALIDATION, task=Task.CLASSIFICATION, machine=ON_HASWELL)
        assert done(PREDICT, settings).record.facts["source"] == "emulated:qemu-x86_64"
    finally:
        release_workers()
