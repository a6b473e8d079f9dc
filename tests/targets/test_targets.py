import platform
from importlib import metadata

import pytest
from packaging.version import Version

from edgemill.compile.backend import BACKENDS
from edgemill.emulate.machine import emulation_lacks, how_executed
from edgemill.errors import RecipeError
from edgemill.recipe import DEFAULT_TARGETS, Scheme
from edgemill.targets import load_target, provenance, target_names
from edgemill.targets.capability import PROXY, UNPROVEN_RANGE, blockers, capability, describe_targets
from edgemill.targets.cpu import DECIDING, architecture, deciding, parse_cpuinfo
from edgemill.targets.provenance import difference
from edgemill.targets.spec import ActivationType, By
from edgemill.toolchains import load_toolchain, toolchain_names

TARGETS = [load_target(name) for name in target_names()]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
class TestCatalog:
    def test_versions_are_a_range(self, target):
        assert Version(target.runtime.minimum) < Version(target.runtime.below)

    def test_formats_are_known(self, target):
        assert set(target.formats) <= {"fp32", *Scheme}
        assert len(set(target.formats)) == len(target.formats)

    def test_onnx_targets_say_what_their_oldest_runtime_reads(self, target):
        assert target.backend != "onnxruntime" or None not in (target.opset, target.ir_version)

    def test_architecture_is_a_machine_name(self, target):
        assert target.arch == architecture(target.arch)

    def test_digest_follows_every_field(self, target):
        other = target.model_copy(update={"limits": target.limits.model_copy(update={"ram_bytes": 1})})
        assert other.digest != target.digest
        assert target.digest == load_target(target.name).digest

    def test_every_lack_has_its_command(self, target):
        for lack in capability(target):
            assert lack.command.startswith(("edgemill ", "apt-get install ", "pip install "))
        assert blockers(target) == [lack for lack in capability(target) if not lack.effect]

    def test_what_the_pipeline_runs_itself_lacks_nothing_but_emulation(self, target):
        if target.toolchains or not target.timed:
            assert target.backend in BACKENDS
            return
        assert blockers(target) == []
        lacking = [] if target.emulation is None else emulation_lacks(target.emulation)
        weak = [lack for lack in capability(target) if lack.effect != UNPROVEN_RANGE]
        assert len(weak) == (len(lacking) if difference(target, platform.machine()) else 0)
        assert {lack.effect for lack in weak} <= {PROXY}

    def test_backend_and_toolchains_exist(self, target):
        assert target.backend in BACKENDS
        assert set(target.toolchains) <= set(toolchain_names())

    def test_the_locked_runtime_is_one_that_the_target_runs(self, target):
        locked: dict[str, str] = {}
        for name in target.toolchains:
            locked |= load_toolchain(name).versions((target.runtime.name,))
        for version in locked.values():
            assert Version(target.runtime.minimum) <= Version(version) < Version(target.runtime.below)

    def test_what_is_not_executed_here_says_why(self, target):
        assert target.execution.by is not By.NOTHING or target.execution.note

    def test_power_price_and_memory_have_a_source(self, target):
        stated = [name for name in ("flash_bytes", "ram_bytes") if getattr(target.limits, name) is not None]
        assert not stated or target.sources

    def test_features_are_names_of_one_architecture(self, target):
        asked = {*target.cpu.any_of, *target.cpu.none_of}
        assert asked <= set(DECIDING)
        assert not set(target.cpu.any_of) & set(target.cpu.none_of)

    def test_the_emulator_runs_the_targets_programs(self, target):
        assert target.emulation is None or architecture(target.arch).startswith(target.emulation.arch)


def test_default_targets_exist():
    assert set(DEFAULT_TARGETS) <= set(target_names())


def test_unknown_target_gets_a_suggestion():
    with pytest.raises(RecipeError) as error:
        load_target("x86_64-vnni")
    assert "x86-64-vnni" in error.value.remedy


@pytest.mark.parametrize(
    ("target", "host", "features", "label"),
    [
        ("x86-64-vnni", "x86_64", {"avx2", "avx512_vnni"}, "measured:native"),
        ("x86-64-vnni", "AMD64", {"avx2", "avx_vnni"}, "measured:native"),
        ("x86-64-vnni", "x86_64", {"avx2"}, "proxy:x86_64-host"),
        ("x86-64-vnni", "x86_64", set(), "proxy:x86_64-host"),
        ("x86-64-avx2", "x86_64", {"avx2"}, "measured:native"),
        ("x86-64-avx2", "x86_64", {"avx2", "avx_vnni"}, "proxy:x86_64-host"),
        ("raspberry-pi-5", "aarch64", {"asimddp"}, "measured:native"),
        ("raspberry-pi-5", "arm64", set(), "measured:native"),
        ("android-arm64", "x86_64", {"avx2"}, "proxy:x86_64-host"),
        ("x86-64-vnni", "arm64", {"asimddp"}, "proxy:aarch64-host"),
        ("android-arm64", "riscv64", set(), "proxy:riscv64-host"),
    ],
)
def test_provenance(target, host, features, label):
    assert provenance(load_target(target), host, features) == label


def test_difference_names_what_is_other():
    avx2, vnni = load_target("x86-64-avx2"), load_target("x86-64-vnni")
    assert difference(avx2, "x86_64", {"avx_vnni"}) == "this CPU has avx_vnni, which the target lacks"
    assert difference(vnni, "x86_64", {"avx2"}) == "this CPU has none of avx512_vnni, avx_vnni"
    assert difference(vnni, "arm64", set()) == "this machine is aarch64, the target x86_64"
    assert difference(vnni, "x86_64", {"avx512_vnni"}) == ""


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t: other\n",
            {"avx2", "avx512_vnni"},
        ),
        ("processor : 0\nFeatures\t: fp asimd asimddp\n", {"asimddp"}),
        ("vmx flags\t: avx2\n", set()),
        ("", set()),
        ("\x00\xff:::\nflags", set()),
    ],
)
def test_cpuinfo(text, features):
    assert set(deciding(parse_cpuinfo(text))) == features


@pytest.mark.parametrize(("activations", "label"), [("int8", "unlike:x86_64-host"), ("uint8", "proxy:x86_64-host")])
def test_signed_arithmetic_on_x86_is_no_proxy_for_arm(activations, label):
    arm = load_target("raspberry-pi-5")
    arm = arm.model_copy(update={"int8": arm.int8.model_copy(update={"activations": ActivationType(activations)})})
    assert provenance(arm, "x86_64") == label


def test_missing_and_wrong_versions_are_named():
    target = load_target("x86-64-vnni")

    def with_runtime(**fields):
        return target.model_copy(update={"runtime": target.runtime.model_copy(update=fields)})

    (absent,) = blockers(with_runtime(name="no-such-runtime"))
    assert "no-such-runtime is not installed" in absent.what
    assert "pip install" in absent.command
    (old,) = blockers(with_runtime(minimum="90.0", below="91"))
    assert metadata.version("onnxruntime") in old.what
    assert "onnxruntime>=90.0,<91" in old.command


def test_description_has_the_whole_catalog():
    described = describe_targets()
    assert [entry["name"] for entry in described] == target_names()
    for entry, target in zip(described, TARGETS, strict=True):
        assert entry["digest"] == target.digest
        assert entry["latency_source"] == provenance(target, platform.machine())
        assert [lack["command"] for lack in entry["lacks"]] == [lack.command for lack in capability(target)]
        assert entry["accuracy_source"] == how_executed(target).source
        assert entry["int8"]["activations"] in ("int8", "uint8")
