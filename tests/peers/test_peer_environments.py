"""Locked environments of the peers: what the lock files hold, and when an environment is made anew."""

from __future__ import annotations

import hashlib
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers.contenders import PEERS
from benchmarks.peers.environments import LOCKS, InstallError, child_environment, ensure


def wheel(folder: Path, version: str) -> str:
    """A package of one module; returns its line in a lock file."""
    path = folder / f"edgemill_peer_probe-{version}-py3-none-any.whl"
    info = f"edgemill_peer_probe-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("edgemill_peer_probe.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: edgemill-peer-probe\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"edgemill-peer-probe=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Locks that need one local package and no network."""
    links, locks = tmp_path / "links", tmp_path / "locks"
    links.mkdir()
    locks.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(links))
    monkeypatch.setenv("UV_OFFLINE", "1")
    return links, locks


def version_in(python: Path) -> str:
    command = [str(python), "-c", "import edgemill_peer_probe as p; print(p.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=child_environment()).stdout.strip()


def test_an_environment_is_reused_until_its_lock_changes(tmp_path, offline):
    links, locks = offline
    (locks / "probe.lock").write_text(wheel(links, "1.0"))
    first = ensure("probe", tmp_path / "work", locks)
    assert not first.reused
    assert version_in(first.python) == "1.0"
    again = ensure("probe", tmp_path / "work", locks)
    assert again.reused
    assert (again.seconds, again.megabytes, again.lock) == (first.seconds, first.megabytes, first.lock)
    (locks / "probe.lock").write_text(wheel(links, "2.0"))
    renewed = ensure("probe", tmp_path / "work", locks)
    assert not renewed.reused
    assert version_in(renewed.python) == "2.0"


def test_an_interrupted_installation_is_made_anew(tmp_path, offline):
    links, locks = offline
    (locks / "probe.lock").write_text(wheel(links, "1.0"))
    made = ensure("probe", tmp_path / "work", locks)
    (tmp_path / "work" / "probe" / "environment.json").unlink()
    (made.python.parent.parent / "lib").rename(tmp_path / "half")
    assert version_in(ensure("probe", tmp_path / "work", locks).python) == "1.0"


def test_a_package_of_another_content_is_refused(tmp_path, offline):
    links, locks = offline
    line = wheel(links, "1.0")
    (locks / "probe.lock").write_text(line[:-5] + "beef\n")
    with pytest.raises(InstallError, match=r"probe: .*[Hh]ash mismatch"):
        ensure("probe", tmp_path / "work", locks)
    assert not (tmp_path / "work" / "probe" / "environment.json").exists()


def test_a_missing_package_says_so(tmp_path, offline):
    _links, locks = offline
    (locks / "probe.lock").write_text(f"torch==0.0.1+cpu --hash=sha256:{'0' * 64}\n")
    with pytest.raises(InstallError, match=r"probe: .*torch.*UV_FIND_LINKS"):
        ensure("probe", tmp_path / "work", locks)


def test_an_unknown_peer_names_the_known(tmp_path):
    with pytest.raises(InstallError, match=r"nope.*nncf"):
        ensure("nope", tmp_path)


def test_every_peer_has_a_script_and_a_lock():
    assert {peer.name for peer in PEERS} == set(environments.names())
    for peer in PEERS:
        assert (LOCKS.parent / f"run_{peer.name}.py").is_file()
        assert (LOCKS / f"{peer.name}.in").is_file()


@pytest.mark.parametrize("name", environments.names())
def test_a_lock_pins_every_file_and_names_no_host(name):
    text = (LOCKS / f"{name}.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    blocks = re.split(r"\n(?=[A-Za-z0-9])", "\n" + "\n".join(x for x in text.splitlines() if not x.startswith("#")))
    packages = [block for block in blocks if block.strip()]
    assert packages
    for block in packages:
        assert re.match(r"[A-Za-z0-9._-]+==", block), block
        assert "--hash=sha256:" in block, block
    asked = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*\])?==(\S+)$", (LOCKS / f"{name}.in").read_text(), re.MULTILINE)
    assert asked
    for package, version in asked:
        assert f"{package}=={version} " in text
