"""Compile for Arm Ethos-U NPUs with Vela.

Vela replaces what the NPU can calculate by command streams and leaves the rest to the CPU, all of it where it
must, without an error. What it writes runs on such a device only. Its numbers are those of the source file: Arm
tests Vela for equal bits with the TensorFlow Lite reference kernels (README of ethos-u-vela, "TensorFlow
Support"), so the source file answers for it in TensorFlow Lite Micro.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings
from edgemill.compile.vela_graph import COMMAND_STREAM, Graph, read_graph
from edgemill.compile.vela_run import Compiled, run_vela
from edgemill.errors import RecipeError, ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import Npu

SOURCE = "simulated:vela"


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one TFLite model.

    Inputs:
        model: tflite, int8.
        data: dataset; not used, since nothing here can run the result.

    Outputs:
        model: vela, a TFLite file with command streams for the NPU.
        executable: tflite-micro, the source file, whose answers are those of the device.

    Facts: `op_counts` of the source, `nodes`, `npu_share` (of the source's operators), `cpu_operators` (names,
    one for each that is left), `reasons` (by operator, in Vela's words), `command_streams`, `cycles`,
    `latency_ms`, `clock_hz`, `macs`, `sram_bytes`, `dram_bytes`, `flash_constants_bytes`, `size_bytes`,
    `accelerator`, `system_config`, `memory_mode`, `compiler_version`, and `device` (`DeviceFigures`).

    Raises:
        RecipeError: the target does not describe an NPU, or contradicts itself.
        ToolchainError: Vela failed, or less of the model runs on the NPU than the target asks for.
    """
    source, npu = inputs["model"].path, settings.target.npu
    if npu is None:
        raise RecipeError(
            "A target of the backend vela needs the section npu.", where=f"target {settings.target.name}", got="none"
        )
    context.report(None, f"compiling for {npu.accelerator}")
    work = context.out / "vela"
    work.mkdir()
    compiled = run_vela(Path(sys.executable), source, npu, work)
    before, after = read_graph(source), read_graph(compiled.file)
    share = npu_share(before, after, compiled, npu, source)
    model, executable = context.out / "model.tflite", context.out / "executable.tflite"
    shutil.move(compiled.file, model)
    shutil.rmtree(work)
    shutil.copyfile(source, executable)
    estimate = compiled.estimate
    facts = {
        "target": settings.target.name,
        "op_counts": dict(sorted(Counter(before.operators).items())),
        "nodes": len(before.operators),
        "npu_share": share,
        "cpu_operators": list(after.left_to_cpu),
        "reasons": dict(compiled.reasons),
        "command_streams": len(after.operators) - len(after.left_to_cpu),
        "cycles": estimate.cycles,
        "latency_ms": 1e3 * estimate.latency_s,
        "clock_hz": estimate.clock_hz,
        "macs": estimate.macs,
        "sram_bytes": estimate.sram,
        "dram_bytes": estimate.dram,
        "flash_constants_bytes": estimate.flash,
        "size_bytes": size_of(model),
        "accelerator": npu.accelerator,
        "system_config": npu.system_config,
        "memory_mode": npu.memory_mode,
        "compiler_version": metadata.version("ethos-u-vela"),
        "device": figures(compiled, after, share, size_of(model), npu).model_dump(mode="json"),
    }
    return Outputs(
        files={
            "model": OutputFile(model, kind="vela", signature=after.signature, facts=facts),
            "executable": OutputFile(executable, kind="tflite-micro", signature=before.signature),
        },
        facts=facts,
    )


def npu_share(before: Graph, after: Graph, compiled: Compiled, npu: Npu, source: Path) -> float:
    """Share of the source's operators that the NPU calculates.

    Raises:
        ToolchainError: less than the target asks for, or nothing at all; with the operators and Vela's reasons.
    """
    left = after.left_to_cpu
    share = max(0.0, 1 - len(left) / max(len(before.operators), 1))
    if share >= npu.min_npu_share and COMMAND_STREAM in after.operators:
        return share
    names = ", ".join(f"{name} ({count})" for name, count in Counter(left).most_common(8))
    why = " | ".join(_by_reason(compiled.reasons)[:3])
    raise ToolchainError(
        "Too little of the model runs on the NPU.",
        where=str(source),
        expected=f"at least {npu.min_npu_share:.0%} of the operators on {npu.accelerator}, in a command stream",
        got=f"{share:.0%} of {len(before.operators)} operators; left to the CPU: {names or 'none'}"
        + (f"; Vela's reasons: {why}" if why else ""),
        remedy="quantize with int8_static or int8_qat, replace the operators, or lower npu.min_npu_share",
    )


def _by_reason(reasons: Mapping[str, str]) -> list[str]:
    """One entry for each reason, with the operators that it holds for."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(reason, []).append(name)
    return [f"{', '.join(names)}: {reason}" for reason, names in grouped.items()]


def figures(compiled: Compiled, after: Graph, share: float, size_bytes: int, npu: Npu) -> DeviceFigures:
    """What Vela says that the model takes on the device."""
    estimate = compiled.estimate
    notes = [
        f"Vela's own model of {npu.system_config}, {npu.memory_mode}, at {estimate.clock_hz / 1e6:g} MHz, not "
        "measured. Arm does not want such figures taken for those of a device, or compared between settings.",
        "RAM is the SRAM that the NPU uses; what the interpreter and the application need besides is not counted. "
        "Flash is the model's file, without code.",
    ]
    if estimate.dram:
        notes.append(f"{estimate.dram} bytes of DRAM for constants and activations are not in RAM.")
    if after.left_to_cpu:
        notes.append("Time of operators that are left to the CPU is not counted.")
    return DeviceFigures(
        source=SOURCE,
        latency_ms=1e3 * estimate.latency_s or None,
        cycles=estimate.cycles or None,
        ram_bytes=estimate.sram,
        flash_bytes=size_bytes,
        npu_share=share,
        cpu_operators=after.left_to_cpu,
        notes=tuple(notes),
    )
