"""Toolchains: locks, installing, and steps that run in them."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgemill.errors import RecipeError, ToolchainError
from edgemill.execute import Call, execute, release_workers
from edgemill.lack import commands
from edgemill.step import Step
from edgemill.store import Store
from edgemill.toolchains import installed, load_toolchain, toolchain_names
from edgemill.toolchains.install import install

SUPPORT = str(Path(__file__).parents[1] / "support")
sys.path.insert(0, SUPPORT)

from edgemill_test_steps import Words  # noqa: E402  (found by the path above)

WHERE = Step(name="test.where", version=1, body="edgemill_test_steps:where", tools=("numpy", "ethos-u-vela"))


def where(toolchain: str | None) -> Call:
    return Call(WHERE, Words(), {}, search_path=(SUPPORT,), toolchain=toolchain)


@pytest.mark.parametrize("name", toolchain_names())
class TestCatalog:
    def test_every_distribution_that_matters_is_locked_with_hashes(self, name):
        toolchain = load_toolchain(name)
        assert set(toolchain.versions(toolchain.provides)) == set(toolchain.provides)
        text = toolchain.lock.read_text()
        assert text.count("--hash=sha256:") >= text.count("==")
        assert "://" not in text

    def test_the_lock_is_of_its_requirements(self, name):
        wanted = toolchain_lines(load_toolchain(name).lock.with_suffix(".in"))
        locked = load_toolchain(name).lock.read_text()
        assert all(f"\n{line.split('>')[0].split('<')[0].split('=')[0].split('[')[0]}" in locked for line in wanted)


def toolchain_lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_unknown_toolchain_gets_a_suggestion():
    with pytest.raises(RecipeError, match="vela"):
        load_toolchain("vella")


def test_what_is_not_there_is_said_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path))
    assert installed("vela").lacks[0].command == "edgemill targets install vela"
    (tmp_path / "vela").mkdir()
    (tmp_path / "vela" / "toolchain.json").write_text("{}")
    assert "cannot be read" in installed("vela").lacks[0].what
    (tmp_path / "vela" / "toolchain.json").write_text('{"name": "vela", "digest": "0", "python": "3"}')
    assert "another version" in installed("vela").lacks[0].what


def test_programs_of_the_system_are_named_at_once_not_after_the_install(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands(installed("tvm").lacks) == ["apt-get install g++", "edgemill targets install tvm"]


def test_a_step_of_a_missing_toolchain_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "none"))
    with pytest.raises(ToolchainError, match="edgemill targets install vela"):
        execute(Store(tmp_path / "home"), where("vela"), lambda *_: None)


def test_the_environment_is_part_of_the_identity():
    plain, other = where(None), where("vela")
    assert plain.key != other.key
    assert "ethos-u-vela" in other.tools
    assert other.key == where("vela").key


@pytest.mark.slow
def test_install_once_and_run_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "toolchains"))
    found = install("vela")
    assert found.lacks == []
    told = subprocess.run([found.program("vela"), "--help"], check=True, capture_output=True, text=True)
    assert "--system-config" in told.stdout
    manifest = found.folder / "toolchain.json"
    written = manifest.stat().st_mtime_ns
    assert install("vela").folder.joinpath("toolchain.json").stat().st_mtime_ns == written
    try:
        record = execute(Store(tmp_path / "home"), where("vela"), lambda *_: None).record
    finally:
        release_workers()
    assert record.facts["prefix"] == str(found.folder)
    assert record.facts["foreign"] == []
    assert record.tools["ethos-u-vela"] == load_toolchain("vela").versions(("ethos-u-vela",))["ethos-u-vela"]


def test_an_index_that_cannot_be_reached_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_TOOLCHAINS", str(tmp_path / "toolchains"))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(ToolchainError, match="cannot be installed"):
        install("vela")
    assert "is not installed" in installed("vela").lacks[0].what
