"""Microcontrollers at a serial line: their firmware answers samples and counts the cycles it takes.

The firmware holds one model and speaks lines of ASCII (checksums: `edgemill.boards.serial_line`):

    hello         -> edgemill 1 model=SHA256 input=BYTES output=BYTES clock_hz=N [ram=BYTES] [flash=BYTES]
    run HEX       -> done CYCLES HEX        one sample in, its answer out, as the model's signature stores them
    (anything)    -> error WORDS            also for a line that does not fit its checksum

`model` is the digest of the compiled file, so that figures of another firmware are not taken for this one's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgemill.artifact import Artifact, Frozen, TensorSpec
from edgemill.boards.inventory import Board
from edgemill.boards.serial_line import DamagedLineError, Line
from edgemill.boards.ssh import title
from edgemill.errors import ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.runtimes.convert import to_real, to_stored

VERSION = 1

Report = Callable[[float | None, str], None]

_ATTEMPTS = 3
_HELLO_S = 3.0
_DONE = re.compile(r"done (\d+) ([0-9a-fA-F]*)")


class Hello(Frozen):
    """How a firmware introduces itself."""

    model: str = Field(pattern=r"^[0-9a-f]{64}$")
    input: int = Field(gt=0, description="bytes of a sample")
    output: int = Field(gt=0, description="bytes of an answer")
    clock_hz: float = Field(gt=0, description="of what it counts the cycles of")
    ram: int | None = Field(None, ge=0, description="bytes of activations, scratch, stack and variables")
    flash: int | None = Field(None, ge=0, description="bytes of code and weights")


def measure_serial(
    board: Board, model: Artifact, x: NDArray[np.float32], out: Path, report: Report
) -> tuple[DeviceFigures, NDArray[np.int64]]:
    """Have a microcontroller answer samples.

    Args:
        board: with a serial line.
        model: what its firmware holds, with its signature.
        x: float32 (N, *sample_shape).
        out: gets `predictions.npy`, float32 (N, *output_shape).
        report: told of progress.

    Returns:
        The figures, latency the median over the samples; and the cycles of each, int64 (N,).

    Raises:
        ToolchainError: the line or the firmware does not answer, or holds another model.
    """
    assert board.serial is not None
    if model.signature is None:
        raise ToolchainError("The file does not say what goes into the model.", where=model.filename, got=model.kind)
    entry, answer = model.signature.inputs[0], model.signature.outputs[0]
    stored = to_stored(x, entry)
    cycles = np.zeros(len(x), np.int64)
    rows = []
    with Line(board.serial, board.wait_s) as line:
        hello = _introduce(board, line)
        _check(board, hello, model, entry, answer)
        for index in range(len(x)):
            told = _ask(board, line, f"run {stored[index].tobytes().hex()}", board.lease_s)
            found = _DONE.fullmatch(told)
            if found is None or len(found[2]) != 2 * hello.output:
                raise _nonsense(board, told)
            cycles[index] = int(found[1])
            rows.append(np.frombuffer(bytes.fromhex(found[2]), answer.dtype).reshape(_shape(answer)))
            report((index + 1) / len(x), f"{board.name}: {index + 1} of {len(x)} answers")
    np.save(out / "predictions.npy", to_real(np.stack(rows), answer), allow_pickle=False)
    typical = int(np.median(cycles))
    if typical == 0:
        raise _nonsense(board, "0 cycles for an inference")
    figures = DeviceFigures(
        source=board.source,
        latency_ms=1e3 * typical / hello.clock_hz,
        cycles=typical,
        ram_bytes=hello.ram,
        flash_bytes=hello.flash,
        notes=(f"median of {len(x)} samples, counted by the firmware at {hello.clock_hz / 1e6:g} MHz",),
    )
    return figures, cycles


def _introduce(board: Board, line: Line) -> Hello:
    told = _ask(board, line, "hello", _HELLO_S)
    name, version, *fields = [*told.split(), "", ""][: max(len(told.split()), 2)]
    if name != "edgemill":
        raise _nonsense(board, told)
    if version != str(VERSION):
        raise ToolchainError(
            "The firmware speaks another version.", where=title(board), expected=str(VERSION), got=version
        )
    try:
        return Hello.model_validate(dict(field.split("=", 1) for field in fields))
    except (ValueError, ValidationError) as error:
        raise _nonsense(board, told) from error


def _check(board: Board, hello: Hello, model: Artifact, entry: TensorSpec, answer: TensorSpec) -> None:
    if hello.model != model.digest:
        raise ToolchainError(
            "The firmware on the board holds another model.",
            where=title(board),
            expected=model.digest,
            got=hello.model,
            remedy=f"build the firmware with {model.filename} and flash it",
        )
    for what, got, spec in (("input", hello.input, entry), ("output", hello.output, answer)):
        wanted = int(np.prod(_shape(spec))) * np.dtype(spec.dtype).itemsize
        if got != wanted:
            raise ToolchainError(
                f"The firmware's {what} has another size than the model's.",
                where=title(board),
                expected=f"{wanted} bytes, {spec.dtype} {_shape(spec)}",
                got=f"{got} bytes",
            )


def _ask(board: Board, line: Line, request: str, limit_s: float) -> str:
    """The answer to a request, which is repeated where noise on the line has spoilt it."""
    trouble = ""
    for _ in range(_ATTEMPTS):
        line.forget()
        line.say(request, limit_s)
        try:
            told = line.hear(limit_s)
        except DamagedLineError as error:
            trouble = str(error)
            continue
        if not told.startswith("error"):
            return told
        trouble = told
    raise ToolchainError(
        "The firmware does not answer as it should.",
        where=title(board),
        expected=f"an answer to `{request[:20]}` in {_ATTEMPTS} attempts",
        got=trouble,
        remedy="check `baud` in the inventory, and that the firmware on the board is one that answers Edgemill",
    )


def _nonsense(board: Board, told: str) -> ToolchainError:
    return ToolchainError("The firmware answers with nonsense.", where=title(board), got=told[:200])


def _shape(spec: TensorSpec) -> tuple[int, ...]:
    """Of one sample."""
    return tuple(size or 1 for size in spec.shape[1:])
