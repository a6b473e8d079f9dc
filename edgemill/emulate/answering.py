"""Answers of a model file on a machine, the host or an emulated CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemill.emulate.executor import Guest, guest_of
from edgemill.emulate.kernels import open_kernels
from edgemill.emulate.machine import Kernels, Machine
from edgemill.emulate.trace import Tensors, trace
from edgemill.runtimes.program import open_program

_FIRST_CHUNK = 4
_AIM_S = 4.0


class Answering(Protocol):
    """A model file ready to answer."""

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 (N, *output_shape) for float32 (N, *sample_shape); see `LoadedModel.predict`."""


class EmulatedModel:
    """A model file in a guest. Samples travel in portions of a few seconds, so that progress is seen and
    a hanging emulator is found; each is answered alone, so portions do not change the answers."""

    def __init__(self, guest: Callable[[], Guest], path: Path, kind: str, exact: bool, threads: int) -> None:
        self._guest = guest
        self._job = (path, kind)
        self._exact = exact
        self._threads = threads
        self._chunk = _FIRST_CHUNK

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Answering.predict`."""
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(x) or not parts:
            portion = x[start : start + self._chunk]
            began = time.monotonic()
            parts.append(self._guest().predict(*self._job, portion, self._exact, self._threads))
            start += max(len(portion), 1)
            pace = (time.monotonic() - began) / max(len(portion), 1)
            self._chunk = max(1, min(4 * self._chunk, int(_AIM_S / max(pace, 1e-6))))
        return np.concatenate(parts)


def open_on(machine: Machine, path: Path, kind: str, threads: int = 1) -> Answering:
    """Load a model file on a machine.

    Args:
        machine: see `how_executed`.
        path: the file.
        kind: of the file, e.g. onnx, tflite or program.
        threads: of one inference.

    Raises:
        ToolchainError: it cannot be loaded there, or the emulator cannot be started.
    """
    exact = machine.kernels is Kernels.EXACT
    emulation = machine.emulation
    if kind == "program":
        return open_program(path, emulation)
    if emulation is None:
        return open_kernels(path, kind, exact, threads)
    return EmulatedModel(lambda: guest_of(emulation), path, kind, exact, threads)


def trace_on(machine: Machine, path: Path, kind: str, x: NDArray[np.float32], threads: int = 1) -> Tensors:
    """Intermediate tensors of a file on a machine; see `edgemill.emulate.trace.trace`."""
    exact = machine.kernels is Kernels.EXACT
    if machine.emulation is None:
        return trace(path, kind, x, exact, threads)
    return guest_of(machine.emulation).trace(path, kind, x, exact, threads)
