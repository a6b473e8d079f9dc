"""In which arithmetic a target's files are answered, decided from what a machine has."""

from __future__ import annotations

import platform

import pytest

from edgemill.emulate.host import this_host
from edgemill.emulate.machine import Kernels, emulation_lacks, how_executed, on_this_host, reference, screened_on
from edgemill.step import cache_key
from edgemill.targets.cpu import architecture
from edgemill.validate import PREDICT, PredictSettings
from tests.emulate.models import ANDROID, ARM, AVX2, BARE, BOARD, EMULATORS, OLD_SERVER, SERVER, VNNI


@pytest.mark.parametrize(
    ("target", "host", "source"),
    [
        (VNNI, SERVER, "measured:native"),
        (VNNI, OLD_SERVER, "proxy:x86_64-host"),
        (AVX2, OLD_SERVER, "measured:native"),
        (AVX2, SERVER, "emulated:qemu-x86_64"),
        (ARM, SERVER, "emulated:qemu-aarch64"),
        (ANDROID, SERVER, "emulated:qemu-aarch64"),
        (ARM, BOARD, "measured:native"),
        (ANDROID, BOARD, "measured:native"),
        (VNNI, BOARD, "proxy:aarch64-host"),
        (AVX2, BOARD, "proxy:aarch64-host"),
        (AVX2, BARE, "proxy:x86_64-host"),
        (ARM, BARE, "proxy:x86_64-host"),
    ],
)
def test_source(target, host, source):
    machine = how_executed(target, host)
    assert machine.source == source
    assert bool(machine.reason) == (source != "measured:native")
    assert (machine.emulation is not None) == source.startswith("emulated:")
    assert machine.is_targets_own == source.startswith(("measured:", "emulated:"))


def test_a_proxy_says_what_gets_the_real_thing():
    assert "apt-get install qemu-user" in how_executed(AVX2, BARE).reason
    without_root = SERVER.model_copy(update={"sysroots": {}})
    machine = how_executed(ARM, without_root)
    assert machine.source == "proxy:x86_64-host"
    assert "edgemill sysroot aarch64" in machine.reason
    stale = without_root.model_copy(update={"unusable": {"aarch64": "the sysroot of aarch64 has onnxruntime 1.0"}})
    (lack,) = emulation_lacks(ARM.emulation, stale)
    assert str(lack) == "the sysroot of aarch64 has onnxruntime 1.0: edgemill sysroot aarch64"
    assert "no emulator has the CPU" in how_executed(VNNI, OLD_SERVER).reason


def test_a_cpu_emulated_on_its_own_architecture_needs_no_sysroot():
    assert emulation_lacks(AVX2.emulation, SERVER.model_copy(update={"sysroots": {}})) == []


def test_hosts_that_saturate_answer_for_others_in_exact_kernels():
    assert how_executed(VNNI, OLD_SERVER).kernels is Kernels.EXACT
    assert reference(OLD_SERVER).kernels is Kernels.EXACT
    assert reference(SERVER).kernels is Kernels.DEFAULT
    assert reference(BOARD).kernels is Kernels.DEFAULT
    assert how_executed(AVX2, OLD_SERVER).kernels is Kernels.DEFAULT  # it is the target, with its faults


def test_identity_tells_arithmetic_apart():
    newer = SERVER.model_copy(update={"emulators": EMULATORS | {"qemu-aarch64": "9.0.0"}})
    other_root = SERVER.model_copy(update={"sysroots": {"aarch64": "cd" * 32}})
    machines = [
        how_executed(ARM, SERVER),
        how_executed(ARM, newer),
        how_executed(ARM, other_root),
        how_executed(ARM, BARE),
        how_executed(AVX2, SERVER),
        how_executed(AVX2, OLD_SERVER),
        on_this_host(SERVER),
        screened_on(how_executed(ARM, SERVER), True, 256, SERVER),
    ]
    keys = set()
    for machine in machines:
        settings = PredictSettings(split="test", task="classification", machine=machine)
        keys.add(cache_key(PREDICT, settings.model_dump(mode="json"), {"model": "m"}, 0, {}))
    assert len(keys) == len(machines)


def test_screen_is_answered_by_the_host_only_where_the_probe_was_close():
    machine = how_executed(ARM, SERVER)
    assert screened_on(machine, False, 256, SERVER) == machine
    probed = screened_on(machine, True, 256, SERVER)
    assert probed.source == "probed:qemu-aarch64"
    assert probed.emulation is None
    assert not probed.is_targets_own
    assert "256 samples" in probed.reason
    native = how_executed(VNNI, SERVER)
    assert screened_on(native, True, 256, SERVER) == native


def test_this_host_is_seen_as_it_is():
    host = this_host()
    assert host.arch == architecture(platform.machine())
    assert host.identity.startswith(host.arch)
    assert on_this_host().identity == host.identity
