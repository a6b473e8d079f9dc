"""Vela as a program: run it, and read what it reports."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemill.errors import RecipeError, ToolchainError
from edgemill.runtimes.single import last_words
from edgemill.targets.spec import Npu

CONFIGURATION = "Arm/vela.ini"
"""Of Vela's own package: systems and memory modes that Arm describes."""
TIME_LIMIT_S = 1800.0

_WARNING = re.compile(r"operator: (\w+), ofm: .*\nReason: (.*)(?:\n(?!\n)(.*))?")
_TENSOR = re.compile(r" \([^()]*\)$")
_FAMILY = re.compile(r"ethos[-_]u\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Estimate:
    """Vela's model of one inference; sizes in bytes.

    Attributes:
        cycles: of the NPU's clock, memory included.
        latency_s: the cycles at that clock.
        clock_hz: clock of the system configuration.
        sram: largest use of the SRAM.
        dram: largest use of the DRAM, constants included.
        flash: constants in flash.
        macs: multiplications.
    """

    cycles: int
    latency_s: float
    clock_hz: float
    sram: int
    dram: int
    flash: int
    macs: int


@dataclass(frozen=True)
class Compiled:
    """What Vela left.

    Attributes:
        file: the TFLite file with command streams.
        estimate: from its summary.
        reasons: by operator, why it was left to the CPU.
    """

    file: Path
    estimate: Estimate
    reasons: Mapping[str, str]


def run_vela(python: Path, source: Path, npu: Npu, folder: Path, limit_s: float = TIME_LIMIT_S) -> Compiled:
    """Compile a TFLite file.

    Args:
        python: interpreter of the environment with Vela.
        source: int8 tflite; its name without suffix names what is written.
        npu: accelerator and system.
        folder: where Vela writes.
        limit_s: Vela is ended after so many seconds.

    Raises:
        RecipeError: the target's accelerator, system configuration and clock contradict each other.
        ToolchainError: Vela hung, crashed, failed, or did not write what it should.
    """
    _refuse_other_family(npu)
    told = _run(python, source, npu, folder, limit_s)
    model, summary = folder / f"{source.stem}_vela.tflite", folder / f"{source.stem}_summary_{npu.system_config}.csv"
    if absent := [path.name for path in (model, summary) if not path.is_file()]:
        raise ToolchainError(
            "Vela ended without an error and without a result.",
            where=str(source),
            expected=f"{model.name} and {summary.name}",
            got=f"no {' and no '.join(absent)}; last words: {last_words(told)}",
        )
    estimate = read_summary(summary)
    if estimate.clock_hz != npu.clock_hz:
        raise RecipeError(
            "The target's clock is not that of its system configuration.",
            where="npu.clock_hz",
            expected=f"{estimate.clock_hz:g}, which {npu.system_config} says in {CONFIGURATION}",
            got=f"{npu.clock_hz:g}",
        )
    return Compiled(model, estimate, reasons(told))


def read_summary(path: Path) -> Estimate:
    """Read Vela's summary, a CSV file with one line of numbers.

    Raises:
        ToolchainError: it is not what Vela 5 writes.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream)
        flash = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
        return Estimate(
            cycles=int(float(row["cycles_total"])),
            latency_s=float(row["inference_time"]),
            clock_hz=float(row["core_clock"]),
            sram=_bytes(float(row["sram_memory_used"])),
            dram=_bytes(float(row["dram_memory_used"])),
            flash=_bytes(flash),
            macs=int(float(row["nn_macs"])),
        )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ToolchainError(
            "Vela's summary cannot be read.",
            where=str(path),
            expected="one line of numbers with the columns of Vela 5",
            got=f"{type(error).__name__}: {error}",
        ) from error


def reasons(told: str) -> dict[str, str]:
    """Why operators were left to the CPU, by operator, from what Vela printed; the first reason of each."""
    found: dict[str, str] = {}
    for name, why, further in _WARNING.findall(told):
        told_plainly = "; ".join(filter(None, (_TENSOR.sub("", why).strip(), further.strip())))
        found.setdefault(name, told_plainly[:200])
    return found


def _run(python: Path, source: Path, npu: Npu, folder: Path, limit_s: float) -> str:
    options = {
        "--accelerator-config": npu.accelerator,
        "--config": CONFIGURATION,
        "--system-config": npu.system_config,
        "--memory-mode": npu.memory_mode,
        "--output-dir": str(folder),
    }
    command = [str(python), "-m", "ethosu.vela", str(source), *(part for pair in options.items() for part in pair)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except OSError as error:
        raise ToolchainError("Vela cannot be started.", where=str(python), got=str(error)) from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            "Vela did not come to an end and was stopped.",
            where=str(source),
            expected=f"at most {limit_s:g} s",
            got=last_words((error.output or b"").decode(errors="replace")) or "not a word",
        ) from error
    told = done.stdout.decode(errors="replace")
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        raise ToolchainError("Vela failed.", where=str(source), got=f"{how}; last words: {last_words(told)}")
    return told


def _refuse_other_family(npu: Npu) -> None:
    """Vela itself takes the system of one NPU for another without a word."""
    families = [
        match[0].lower().replace("_", "-")
        for match in map(_FAMILY.match, (npu.accelerator, npu.system_config))
        if match
    ]
    if len(set(families)) > 1:
        raise RecipeError(
            "The system configuration is of another NPU.",
            where="npu.system_config",
            expected=f"one of {families[0]}",
            got=npu.system_config,
        )


def _bytes(kibibytes: float) -> int:
    return round(kibibytes * 1024)
