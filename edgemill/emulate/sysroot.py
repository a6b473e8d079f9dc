"""Build a sysroot: the system and the Python distributions in which a foreign CPU's programs run.

Everything is made beside the final place and renamed; a killed build leaves nothing that looks whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgemill.emulate import debian, wheels
from edgemill.emulate.executor import Guest
from edgemill.emulate.host import emulator_version
from edgemill.emulate.places import ARCHITECTURES, FORMAT, MANIFEST, Manifest, Sysroot, read_sysroot, sysroots_folder
from edgemill.errors import RecipeError, ToolchainError
from edgemill.store import storage_error
from edgemill.targets.spec import Emulation

Report = Callable[[float, str], None]

_EMULATIONS = {"aarch64": Emulation(emulator="qemu-aarch64", cpu="cortex-a76")}


def build_sysroot(arch: str, report: Report, mirror: str | None = None, folder: Path | None = None) -> Sysroot:
    """The sysroot of an architecture, built where it is not there or does not fit what is installed.

    Args:
        arch: e.g. aarch64.
        report: `report(fraction, message)`.
        mirror: of the Debian archive; None: the one that this machine uses.
        folder: of all sysroots; None: `sysroots_folder()`.

    Raises:
        RecipeError: no sysroot can be built for this architecture.
        ToolchainError: a tool is missing or failed, or the finished sysroot does not run.
        StoreError: it cannot be written.
    """
    if arch not in ARCHITECTURES:
        raise RecipeError("There is no recipe for a sysroot.", where=arch, expected=", ".join(ARCHITECTURES))
    place = folder or sysroots_folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _lock(place / f".{arch}.lock", report):
            found = read_sysroot(arch, place)
            if found is not None and not found.stale and _complete(found):
                report(1.0, f"{found.folder} is there already")
                return found
            return _build(arch, place, report, mirror)
    except OSError as error:
        raise storage_error(error, place) from error


def _build(arch: str, place: Path, report: Report, mirror: str | None) -> Sysroot:
    _require_emulator(arch)
    debian.require_tools()
    _sweep(place, arch)
    with tempfile.TemporaryDirectory(prefix=f".{arch}-", dir=place) as name:
        work, made = Path(name), Path(name) / "made"
        made.mkdir()
        report(0.05, f"fetching {len(debian.PACKAGES)} Debian packages ({debian.RELEASE}, {ARCHITECTURES[arch]})")
        packages = debian.fetch(ARCHITECTURES[arch], work, mirror or debian.own_mirror())
        report(0.35, "unpacking them")
        hashes = debian.unpack(packages, made / "root")
        report(0.45, "fetching Python distributions")
        versions, checked = wheels.install(arch, made / "site", work)
        manifest = Manifest(
            format=FORMAT,
            arch=arch,
            release=debian.RELEASE,
            python=debian.PYTHON,
            packages=hashes,
            wheels=versions,
            hash_checked=checked,
        )
        (made / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        report(0.75, "starting Python in it")  # which also compiles the modules that every guest imports
        with Guest(_EMULATIONS[arch], sysroot=Sysroot(made, manifest)) as guest:
            hello = guest.hello
        if hello.machine != arch:
            raise ToolchainError("The sysroot runs another CPU.", where=str(made), expected=arch, got=hello.machine)
        final = place / arch
        old = work / "old"
        with suppress(FileNotFoundError):
            final.rename(old)
        made.rename(final)
    report(1.0, f"{final} is ready")
    return Sysroot(final, manifest)


def _complete(found: Sysroot) -> bool:
    """Whether a sysroot has what every target needs; one that was built earlier may serve some of them only."""
    return found.manifest is not None and wheels.complete(found.manifest.wheels)


def _require_emulator(arch: str) -> None:
    name = _EMULATIONS[arch].emulator
    path = shutil.which(name)
    if path is None or emulator_version(path) is None:
        raise ToolchainError(
            "The emulator that runs a sysroot's programs is not installed.",
            where="PATH",
            expected=name,
            remedy="apt-get install qemu-user",
        )


def _sweep(place: Path, arch: str) -> None:
    """Remove what killed builds have left; the lock is held, so none is running."""
    for left in place.glob(f".{arch}-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _lock(path: Path, report: Report) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(0.0, "waiting for another build")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
