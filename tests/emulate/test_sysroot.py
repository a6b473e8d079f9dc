"""The sysroot: what it is made of, when it is stale, and ARM answers from one that is built here."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from click.testing import CliRunner

from edgemill.commands.sysroot import sysroot as command
from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate import debian
from edgemill.emulate.executor import Guest, release_guests
from edgemill.emulate.host import this_host
from edgemill.emulate.machine import how_executed
from edgemill.emulate.places import FORMAT, MANIFEST, Manifest, read_sysroot
from edgemill.emulate.sysroot import build_sysroot
from edgemill.emulate.wheels import locked
from edgemill.errors import RecipeError, ToolchainError
from edgemill.runtimes.litert import LiteRtModel
from edgemill.step import tool_versions
from edgemill.targets.spec import Emulation
from edgemill.validate.divergence import Closeness, Divergence, DivergenceSettings
from edgemill.validate.divergence_step import run as diverge
from tests.emulate.models import ANDROID, ARM, context, needs_sysroot_tools, quantized
from tests.runtimes import models as runtime_models

HERE = tool_versions(("onnxruntime", "ai-edge-litert", "numpy"))


def manifest(**changes) -> Manifest:
    fields = {"format": FORMAT, "arch": "aarch64", "release": "bookworm", "python": "3.11"}
    return Manifest.model_validate(fields | {"packages": {}, "wheels": HERE, "hash_checked": True} | changes)


def place(folder, text: str) -> None:
    (folder / "aarch64").mkdir(parents=True)
    (folder / "aarch64" / MANIFEST).write_text(text)


def test_no_sysroot_is_none(tmp_path):
    assert read_sysroot("aarch64", tmp_path) is None


def test_a_fitting_sysroot_is_used(tmp_path):
    place(tmp_path, manifest().model_dump_json())
    found = read_sysroot("aarch64", tmp_path)
    assert found.stale == ""
    assert found.digest == manifest().digest != manifest(packages={"libc6.deb": "ab" * 32}).digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (manifest(wheels=HERE | {"onnxruntime": "1.0"}).model_dump_json(), "onnxruntime 1.0"),
        (manifest(format=FORMAT + 1).model_dump_json(), "another version of Edgemill"),
        ("{", "cannot be read"),
        ('{"format": 1}', "cannot be read"),
    ],
)
def test_a_sysroot_that_does_not_fit_is_not_used(tmp_path, monkeypatch, text, why):
    place(tmp_path, text)
    assert why in read_sysroot("aarch64", tmp_path).stale
    monkeypatch.setenv("EDGEMILL_SYSROOTS", str(tmp_path))
    host = this_host()
    assert host.sysroots == {}
    assert why in host.unusable["aarch64"]


def test_lines_of_the_lock_are_taken_with_their_hashes(tmp_path):
    lock = tmp_path / "dev.lock"
    lock.write_text(
        "# a lock\nnumpy==2.4.6 ; python_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
        "    # via onnx\nnumpy==2.5.5 ; python_version >= '3.12' \\\n    --hash=sha256:cc\n"
        "numpy-quaternion==1 \\\n    --hash=sha256:dd\n"
    )
    lines = locked(lock, {"numpy": "2.4.6"})
    assert "".join(lines).count("--hash") == 3
    assert "quaternion" not in "".join(lines)
    assert not [line for line in lines if "#" in line]
    assert locked(lock, {"numpy": "1.0"}) == []
    assert locked(lock, {"onnx": "1.0"}) == []
    assert locked(tmp_path / "none.lock", {"numpy": "2.4.6"}) == []


def test_unknown_architectures_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no recipe"):
        build_sysroot("mips", lambda *_: None, folder=tmp_path)
    assert CliRunner().invoke(command, ["mips"]).exit_code == 2


def test_missing_tools_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ToolchainError) as error:
        build_sysroot("aarch64", lambda *_: None, folder=tmp_path)
    assert error.value.remedy == "apt-get install qemu-user"
    with pytest.raises(ToolchainError) as error:
        debian.require_tools()
    assert "no apt-get and no dpkg-deb" in error.value.got


@needs_sysroot_tools
def test_an_archive_that_does_not_answer_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_SYSROOTS", str(tmp_path))
    done = CliRunner().invoke(command, ["aarch64", "--mirror", "http://127.0.0.1:9/debian"])
    assert done.exit_code == 1
    assert "apt-get failed" in done.output
    assert "--mirror" in done.output
    assert read_sysroot("aarch64", tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == [".aarch64.lock"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sysroots")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMILL_SYSROOTS", str(folder))
        done = CliRunner().invoke(command, ["--json"])
        assert done.exit_code == 0, done.output
        yield json.loads(done.stdout)
        release_guests()


def probe(machine, file, data, folder) -> Divergence:
    settings = DivergenceSettings(machine=machine, samples=16, traced=2)
    return Divergence.model_validate(diverge(settings, {"model": file, "data": data}, context(folder)).facts)


@pytest.mark.slow
@needs_sysroot_tools
class TestBuilt:
    def test_it_is_whole_and_found_again(self, built):
        assert built["wheels"] | HERE == built["wheels"]
        assert built["hash_checked"]
        assert how_executed(ARM).source == "emulated:qemu-aarch64"
        assert built["digest"][:16] in how_executed(ARM).identity
        began = time.monotonic()
        assert CliRunner().invoke(command, []).exit_code == 0
        assert time.monotonic() - began < 2  # nothing is built twice

    @pytest.mark.parametrize("cpu", ["cortex-a72", "cortex-a76", "neoverse-n1"])
    def test_guests_have_the_features_of_their_cpu(self, built, cpu):
        with Guest(Emulation(emulator="qemu-aarch64", cpu=cpu)) as guest:
            assert guest.hello.machine == "aarch64"
            assert ("asimddp" in guest.hello.features) is (cpu != "cortex-a72")
            assert guest.hello.versions == {name: HERE[name] for name in guest.hello.versions}

    def test_integers_are_equal_and_floats_round(self, built, fp32, data, tmp_path):
        machine = how_executed(ARM)
        int8 = quantized(tmp_path / "int8", fp32, data, ARM)
        assert probe(machine, int8, data, tmp_path / "p1").output.closeness is Closeness.EQUAL
        assert probe(machine, fp32, data, tmp_path / "p2").close

    def test_xnnpack_of_arm_answers_rightly(self, built, tmp_path):
        # it is wrong or dies where /proc/cpuinfo does not fit the emulated CPU
        x = runtime_models.inputs(12)
        floats = runtime_models.dense_tflite(tmp_path / "float32.tflite")
        ints = runtime_models.dense_tflite(tmp_path / "int8.tflite", "int8")
        expected = runtime_models.answers(x)
        with Guest(ANDROID.emulation) as guest:
            assert np.abs(guest.predict(floats, "tflite", x) - expected).max() < 1e-5
            assert np.array_equal(guest.predict(ints, "tflite", x), LiteRtModel(ints, 1).predict(x))
            traced = guest.trace(floats, "tflite", x[:2])
        assert np.abs(list(traced.values())[-1].reshape(2, -1) - expected[:2]).max() < 1e-5

    def test_test_data_can_be_read_in_the_guest(self, built, fp32, data):
        x = Dataset(data.path).features(SplitName.TEST)
        with Guest(ARM.emulation) as guest:
            assert np.isfinite(guest.predict(fp32.path, "onnx", x)).all()
