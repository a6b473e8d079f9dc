"""Models that are programs: C, compiled and linked for a CPU, run here natively or in an emulator.

A folder of this kind holds `target`, the program for the device; `host`, the same C for the machine that compiled
it; and `program.json`. A program for Linux reads samples from standard input and writes answers to standard output;
one without an operating system does the same with two files, by semihosting. Samples and answers are plain arrays
in the types of the signature, one batch after the other until there are no more.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgemill.artifact import Frozen, Signature
from edgemill.errors import ToolchainError
from edgemill.runtimes.base import LoadedModel, Runtime
from edgemill.runtimes.convert import check_samples, check_single_input, to_real, to_stored
from edgemill.targets.cpu import architecture
from edgemill.targets.spec import Emulation

MANIFEST, TARGET, HOST = "program.json", "target", "host"
SAMPLES, ANSWERS = "samples.bin", "answers.bin"
"""Names of the files of a program without an operating system."""
PORTION_LIMIT_S = 600.0
MAX_DIFFERENCE = 1e-5
"""Of floating-point answers of one C source on two machines, relative to the largest: of the functions of libm."""

_FIRST_PORTION = 4
_AIM_S = 10.0
_EXIT_FAULT = 70
_BARE = "qemu-system-arm"


class ProgramManifest(Frozen):
    """What a folder with programs says of them."""

    signature: Signature
    arch: str = Field(description="that `target` was compiled for, as platform.machine() names it")
    host_arch: str = Field(description="that `host` was compiled for")
    exact: bool = Field(description="whether both must give the same bits: everything between the ends is integer")


def read_manifest(path: Path) -> ProgramManifest:
    """The manifest of a folder with programs.

    Raises:
        ToolchainError: there is none, or it is damaged.
    """
    try:
        return ProgramManifest.model_validate_json((path / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise ToolchainError(
            "The folder holds no program that can be run.",
            where=str(path / MANIFEST),
            got=" ".join(str(error).split())[:300],
        ) from error


class ProgramModel:
    """A program, run anew for every portion of a few seconds; each sample is answered alone."""

    def __init__(
        self, path: Path, emulation: Emulation | None = None, twin: bool = False, limit_s: float = PORTION_LIMIT_S
    ) -> None:
        """Look at the folder; nothing is run yet.

        Args:
            path: the folder.
            emulation: CPU in which `target` runs; None: this machine runs it, if it is of its architecture.
            twin: whether `host` answers instead; it does without an emulation where `target` cannot run.
            limit_s: seconds after which a portion of samples counts as hanging.
        """
        self._manifest = read_manifest(path)
        self.signature = self._manifest.signature
        check_single_input(self.signature.inputs, path)
        here = self._manifest.arch == architecture(platform.machine())
        self._source = path / (TARGET if not twin and (emulation is not None or here) else HOST)
        # a store keeps no permission to execute; the copy goes with this object
        self._folder = tempfile.TemporaryDirectory(prefix="edgemill-program-")
        self._program = Path(self._folder.name) / self._source.name
        self._place()
        self._emulation = None if twin else emulation
        self._limit_s = limit_s
        self._portion = _FIRST_PORTION

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`.

        Raises:
            ToolchainError: the program cannot be started, died, hung, or wrote too little or too much.
        """
        entry, answer = self.signature.inputs[0], self.signature.outputs[0]
        check_samples(x, entry)
        if len(x) == 0:
            return np.zeros((0, *(size or 0 for size in answer.shape[1:])), np.float32)
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(x):
            stored = to_stored(x[start : start + self._portion], entry)
            began = time.monotonic()
            parts.append(to_real(self._answer(stored), answer))
            pace = (time.monotonic() - began) / len(stored)
            start += len(stored)
            self._portion = max(1, min(8 * self._portion, int(_AIM_S / max(pace, 1e-6))))
        return np.concatenate(parts)

    def prepare(self, x: NDArray[np.float32]) -> Callable[[], Any]:
        """See `LoadedModel.prepare`; the start of the program is part of the call."""
        check_samples(x, self.signature.inputs[0])
        stored = to_stored(x, self.signature.inputs[0])
        return lambda: self._answer(stored)

    def _answer(self, stored: NDArray[np.generic]) -> NDArray[np.generic]:
        """Answers of a program to samples as they are stored, one row each."""
        output = self.signature.outputs[0]
        batch = self.signature.inputs[0].shape[0] or 1
        short = -len(stored) % batch
        filled = np.concatenate([stored, np.repeat(stored[-1:], short, axis=0)]) if short else stored
        told = self._run(filled.tobytes())
        dtype, shape = np.dtype(output.dtype), tuple(size or 1 for size in output.shape[1:])
        wanted = len(filled) * int(np.prod(shape)) * dtype.itemsize
        if len(told) != wanted:
            raise ToolchainError(
                "The program ended without an error and did not write an answer to every sample.",
                where=self._title,
                expected=f"{wanted} bytes, {len(filled)} answers",
                got=f"{len(told)} bytes",
                remedy="this is a fault of the compiler, its C library or the emulator",
            )
        return np.frombuffer(told, dtype).reshape(len(filled), *shape)[: len(stored)]

    def _place(self) -> None:
        try:
            shutil.copyfile(self._source, self._program)
        except OSError as error:
            raise ToolchainError(
                "The folder holds no program that can be run.", where=str(self._source), got=str(error)
            ) from error
        self._program.chmod(0o755)

    @property
    def _title(self) -> str:
        emulator = "" if self._emulation is None else f" in {self._emulation.emulator}"
        return f"{self._source}{emulator}"

    def _run(self, samples: bytes) -> bytes:
        if self._emulation is None:
            return self._call([str(self._program)], samples).stdout
        emulation = self._emulation
        if emulation.emulator != _BARE:
            return self._call([emulation.emulator, "-cpu", emulation.cpu, str(self._program)], samples).stdout
        folder = Path(self._folder.name)
        answers = folder / ANSWERS
        answers.unlink(missing_ok=True)
        (folder / SAMPLES).write_bytes(samples)
        self._call(board_command(emulation, self._program), b"", folder)
        return answers.read_bytes() if answers.exists() else b""

    def _call(
        self, command: list[str], samples: bytes, folder: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        try:
            done = subprocess.run(
                command, input=samples, capture_output=True, timeout=self._limit_s, cwd=folder, check=False
            )
        except FileNotFoundError as error:
            raise ToolchainError("The program cannot be started.", where=self._title, got=str(error)) from error
        except OSError as error:
            raise ToolchainError(
                "The program cannot be started.",
                where=self._title,
                got=str(error),
                remedy="it is of another architecture: it needs the emulator that the target names",
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ToolchainError(
                "The program did not end within its time and was stopped.",
                where=self._title,
                expected=f"at most {self._limit_s:.0f} s",
                got=_last_words(error.stderr),
            ) from error
        if done.returncode != 0:
            raise ToolchainError(
                "The program died.", where=self._title, got=f"{_end(done.returncode)}; {_last_words(done.stderr)}"
            )
        return done


class ProbedModel:
    """A program whose first samples are answered by the emulated CPU and by its twin on this machine, which answers
    the others alone once both gave the same answers."""

    def __init__(self, path: Path, emulation: Emulation) -> None:
        """See `ProgramModel`; `emulation.probe` says how many samples are answered twice."""
        self._own, self._twin = ProgramModel(path, emulation), ProgramModel(path, twin=True)
        self._exact = read_manifest(path).exact
        self._left = emulation.probe or 0

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `LoadedModel.predict`.

        Raises:
            ToolchainError: as `ProgramModel`; or the two do not give the same answers.
        """
        answers = self._twin.predict(x)
        if count := min(self._left, len(x)):
            check_same(self._own.predict(x[:count]), answers[:count], self._exact, "the emulated CPU")
            self._left -= count
        return answers


def open_program(path: Path, emulation: Emulation | None) -> ProgramModel | ProbedModel:
    """Load a folder with programs.

    Args:
        path: the folder.
        emulation: of the target; None: this machine answers.

    Raises:
        ToolchainError: it holds no program.
    """
    if emulation is None or emulation.probe is None:
        return ProgramModel(path, emulation)
    return ProbedModel(path, emulation)


def check_same(own: NDArray[np.float32], twin: NDArray[np.float32], exact: bool, title: str) -> None:
    """Refuse answers (N, ...) of one C source that differ between a CPU and this machine.

    Args:
        own: of the CPU.
        twin: of this machine.
        exact: whether the bits have to be equal; else the difference may be `MAX_DIFFERENCE` of the largest answer.
        title: the CPU, for messages.

    Raises:
        ToolchainError: they differ.
    """
    if own.tobytes() == twin.tobytes():
        return
    difference = np.abs(own - twin)
    limit = 0.0 if exact else MAX_DIFFERENCE * max(float(np.abs(twin).max()), 1e-9)
    if exact or not float(difference.max()) <= limit:
        rows = int((own != twin).reshape(len(twin), -1).any(axis=1).sum())
        raise ToolchainError(
            f"The same C gives other answers on {title} than on this machine.",
            expected="equal bits: the model calculates with integers" if exact else f"differences up to {limit:.3g}",
            got=f"{rows} of {len(twin)} answers differ, by up to {float(difference.max()):.3g}",
            remedy="this is a fault of a compiler, a C library or the emulator: try another version of it",
        )


def board_command(emulation: Emulation, program: Path) -> list[str]:
    """How qemu-system-arm runs a program on a board, with semihosting in the current folder.

    Raises:
        ToolchainError: the emulation names no board.
    """
    if emulation.board is None:
        raise ToolchainError("The target names no board for qemu-system-arm.", where="emulation.board")
    plain = ["-nodefaults", "-display", "none", "-serial", "none", "-monitor", "none"]
    semihosting = ["-semihosting-config", "enable=on,target=native"]
    machine = ["-M", emulation.board, "-cpu", emulation.cpu]
    return [emulation.emulator, *machine, *plain, *semihosting, "-kernel", str(program)]


def _end(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    return "fault of the CPU" if status == _EXIT_FAULT else f"exit status {status}"


def _last_words(stderr: bytes | None) -> str:
    lines = (stderr or b"").decode(errors="replace").strip().splitlines()
    return f"last words: {' | '.join(lines[-3:])[:300]}" if lines else "it said nothing"


class Program:
    """Loads folders with programs."""

    name = "program"
    kinds: tuple[str, ...] = ("program",)

    def load(self, path: Path, threads: int = 1) -> LoadedModel:
        """See `Runtime.load`; a program of another architecture is answered by its twin for the host."""
        return ProgramModel(path)

    def version(self) -> str:
        """See `Runtime.version`: a program needs no runtime."""
        return "none"


RUNTIME: Runtime = Program()
