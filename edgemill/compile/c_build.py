"""Compile generated C with gcc, link it into programs, and read from the linker what a model takes."""

from __future__ import annotations

import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgemill.artifact import Signature
from edgemill.compile.c_generate import ENTRY, FLOAT_FLAGS, SOURCE
from edgemill.compile.c_harness import harness, linker_script
from edgemill.errors import ToolchainError
from edgemill.targets.cpu import architecture
from edgemill.targets.spec import CrossCompiler

FLAGS = ("-ffunction-sections", "-fdata-sections", "-fno-asynchronous-unwind-tables", *FLOAT_FLAGS)

_LIMIT_S = 900.0
_NODE = re.compile(r'node: \{ title: "([^"]+)" label: "([^"]*)"')
_EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')
_FRAME = re.compile(r"(\d+) bytes \(([\w,]+)\)")


@dataclass(frozen=True)
class Footprint:
    """What a compiled model takes on a device.

    Attributes:
        code_bytes: .text and .rodata: code and weights.
        data_bytes: .data, which is in flash and in RAM.
        bss_bytes: .bss.
        stack_bytes: of the deepest chain of calls below the model's function, its own frame included.
        outside: functions of C libraries that are called, whose frames are not in `stack_bytes`.
    """

    code_bytes: int
    data_bytes: int
    bss_bytes: int
    stack_bytes: int
    outside: tuple[str, ...]


def footprint(cross: CrossCompiler, source: Path, work: Path) -> Footprint:
    """Compile `model.c` and link it alone, without what is unused.

    Without an operating system the model is linked with the functions of libm and libgcc that it calls, which the
    device has to store too; with one they are the system's.

    Args:
        cross: the compiler.
        source: folder of `model.c`.
        work: folder for its object `model.o` and what else is written.

    Raises:
        ToolchainError: the compiler is missing, fails or hangs; or the stack has no fixed size.
    """
    compiled = work / "model.o"
    _run(cross, ["-c", "-std=c99", *_flags(cross), "-fcallgraph-info=su", str(source / SOURCE), "-o", str(compiled)])
    alone = work / "alone"
    linked = ["-nostartfiles", "-static", "-lm"] if cross.bare else ["-nostdlib", "-r"]
    root = [f"-Wl,--entry={ENTRY}", f"-Wl,--undefined={ENTRY}", "-Wl,--gc-sections"]
    _run(cross, [*root, str(compiled), *linked, "-o", str(alone)])
    code, data, bss = _sizes(cross, alone)
    stack, outside = _stack(compiled.with_suffix(".ci").read_text(encoding="utf-8"))
    return Footprint(code, data, bss, stack, outside)


def link(
    cross: CrossCompiler, signature: Signature, source: Path, work: Path, stack_bytes: int, board: str | None
) -> Path:
    """Link `model.o` of `footprint` with a harness into a static program.

    Args:
        cross: the compiler.
        signature: of the model.
        source: folder of `model.h`.
        work: folder of `model.o`; the program is written there.
        stack_bytes: what the model needs.
        board: emulated board of a program without an operating system.

    Raises:
        ToolchainError: the compiler fails or hangs, or the program does not fit into the board's memory.
    """
    caller, program = work / "harness.c", work / "program"
    caller.write_text(harness(signature, cross.bare), encoding="utf-8")
    defined = [f"-DSTACK_BYTES={stack_bytes}", f"-I{source}"]
    command = ["-std=gnu99", *_flags(cross), *defined, str(caller), str(work / "model.o")]
    if cross.bare:
        script = work / "board.ld"
        script.write_text(linker_script(board, stack_bytes), encoding="utf-8")
        command += ["-nostartfiles", f"-Wl,-T,{script}"]
    _run(cross, [*command, "-static", "-Wl,--gc-sections", "-Wl,--build-id=none", "-s", "-lm", "-o", str(program)])
    return program


def compiler_version(cross: CrossCompiler) -> str:
    """First line of what the compiler says of itself."""
    return _run(cross, ["--version"]).splitlines()[0]


def host_arch() -> str:
    """Architecture that `HOST_COMPILER` compiles for."""
    return architecture(platform.machine())


def _flags(cross: CrossCompiler) -> tuple[str, ...]:
    """Speed where memory is plenty; -O3 makes generated loops three times as fast on x86-64, and code larger."""
    return ("-O2" if cross.bare else "-O3", *FLAGS)


def _sizes(cross: CrossCompiler, path: Path) -> tuple[int, int, int]:
    """.text with .rodata, .data and .bss of an object or program."""
    tool = _run(cross, ["-print-prog-name=size"]).strip()
    told = _command([tool, "-B", str(path)], cross).splitlines()
    code, data, bss = (int(word) for word in told[1].split()[:3])
    return code, data, bss


def _stack(callgraph: str) -> tuple[int, tuple[str, ...]]:
    """Deepest stack below `ENTRY` in gcc's graph of calls, and the functions outside it."""
    frames = {name: found for name, label in _NODE.findall(callgraph) if (found := _FRAME.search(label))}
    calls: dict[str, set[str]] = {}
    for caller, callee in _EDGE.findall(callgraph):
        calls.setdefault(caller, set()).add(callee)
    outside: set[str] = set()

    def depth(name: str, chain: tuple[str, ...]) -> int:
        if name not in frames:
            outside.add(name)
            return 0
        size, kind = frames[name].groups()
        if name in chain or kind not in ("static", "dynamic,bounded"):
            raise ToolchainError(
                "It cannot be said how much stack the generated C needs.",
                where=name,
                expected="frames of a fixed size, and no function that calls itself",
                got="recursion" if name in chain else f"a frame of {kind} size",
            )
        below = (depth(callee, (*chain, name)) for callee in sorted(calls.get(name, ())))
        return int(size) + max(below, default=0)

    return depth(ENTRY, ()), tuple(sorted(outside))


def _run(cross: CrossCompiler, arguments: list[str]) -> str:
    return _command([cross.compiler, *cross.flags, *arguments], cross)


def _command(command: list[str], cross: CrossCompiler) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except OSError as error:
        raise ToolchainError(
            f"{command[0]} cannot be started.", got=str(error), remedy=f"apt-get install {' '.join(cross.packages)}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"{command[0]} did not end within its time and was stopped.", expected=f"at most {_LIMIT_S:.0f} s"
        ) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line or "overflow" in line]
        raise ToolchainError(
            f"{command[0]} failed.",
            where="the generated C",
            got=" | ".join(lines or done.stderr.strip().splitlines()[-3:])[:500] or f"exit status {done.returncode}",
        )
    return done.stdout
