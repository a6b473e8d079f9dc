"""Compile to C: an ONNX model becomes C without a runtime, and a program for the target that is proven equal.

The same C is compiled for this host and for the target. An int8 model has to answer with the same bits on both: its
operators are integer, and what floating point there is in them rounds once an operation (see
`c_generate.FLOAT_FLAGS`). Only where an operator stayed in floating point, say a softmax at the end, two C libraries
may differ in the last bit.
"""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from edgemill.artifact import Signature, TensorSpec, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.c_build import Footprint, compiler_version, footprint, host_arch, link
from edgemill.compile.c_compiler import HOST_COMPILER
from edgemill.compile.c_generate import describe, generate
from edgemill.compile.c_graph import LEVELS, fused, single_sample, strange
from edgemill.compile.onnx_graph import float_nodes, op_counts
from edgemill.compile.verify import INTEGER_SCHEMES, compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import InvariantError, ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options
from edgemill.runtimes.program import HOST, MANIFEST, TARGET, ProgramManifest, ProgramModel, check_same
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.provenance import difference
from edgemill.targets.spec import ActivationType, CrossCompiler, Target

_STACK_MARGIN = 16 << 10
"""Stack of a program beside the model's: of the harness and of C libraries."""


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model.

    Inputs:
        model: onnx, fp32 or int8 as QDQ pairs.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: c, a folder with model.c, model.h and a README.
        executable: program, a folder with the program for the target and its twin for this host.

    Facts: `level` of graph optimization and `level_reasons` (why no higher one), `op_counts`, `float_nodes` (of an
    int8 model: operators in floating point), `bit_equal` (whether target and host gave the same bits),
    `host_max_difference` (largest absolute difference between them), `compiler`, `generator`, `size_bytes`,
    `device` (`DeviceFigures`), and of the comparison with the ONNX model in onnxruntime `max_difference`,
    `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: an operator is unknown, a tool fails, the program cannot be run, an int8 model gives other
            bits on the target than on the host, or the answers are not the model's.
    """
    target, source_path = settings.target, inputs["model"].path
    cross = target.cross
    if cross is None:
        raise InvariantError("A target of this backend needs a compiler.", where=f"target {target.name}, cross")
    integer = settings.scheme in INTEGER_SCHEMES
    context.report(None, f"writing C for {target.name}")
    work, folder = context.out / "work", context.out / "model"
    work.mkdir()
    single = work / "single.onnx"
    onnx.save(single_sample(source_path), str(single))
    graph, signature, level, reasons = _generate(single, target, work, folder)
    describe(signature, folder)
    context.report(0.3, "compiling")
    in_float = float_nodes(graph)
    exact = integer and not in_float
    own, programs = _build(cross, target, signature, folder, context.out, exact)
    context.report(0.6, "comparing with the model it was made from")
    x = samples(Dataset(inputs["data"].path), signature)
    answers = _answers(programs, target, x)
    facts: dict[str, Any] = {
        "target": target.name,
        "level": level,
        "level_reasons": reasons,
        "op_counts": op_counts(graph),
        "float_nodes": in_float if integer else [],
        "compiler": compiler_version(cross),
        "generator": f"emx-onnx-cgen {metadata.version('emx-onnx-cgen')}",
        "size_bytes": size_of(folder),
        "device": _figures(own, signature, target, cross).model_dump(mode="json"),
    }
    facts |= _same(answers[TARGET], answers[HOST], exact, target)
    facts |= compare(_reference(source_path, target, x), answers[TARGET], numbers_of(settings.scheme), str(folder))
    shutil.rmtree(work)
    return Outputs(
        files={
            "model": OutputFile(folder, kind="c", signature=signature, facts=facts),
            "executable": OutputFile(programs, kind="program", signature=signature),
        },
        facts=facts,
    )


def _generate(single: Path, target: Target, work: Path, folder: Path) -> tuple[ModelProto, Signature, str, list[str]]:
    """C from the highest level of optimization of which the generator makes it, and why not from a higher one."""
    source = onnx.load(str(single))
    keep = target.int8.activations is ActivationType.INT8
    reasons: list[str] = []
    failure: ToolchainError | None = None
    for level in LEVELS:
        graph = fused(single, level, keep, work)
        if why := strange(source, graph):
            reasons.append(f"{level}: {why}")
            continue
        path = work / "graph.onnx"
        onnx.save(graph, str(path))
        try:
            generate(path, folder)
        except ToolchainError as error:
            failure = error
            reasons.append(f"{level}: {error.what} {error.got or ''}".strip())
            continue
        return graph, OnnxRuntimeModel(path, session_options(threads=1)).signature, level, reasons
    raise failure or ToolchainError(
        "onnxruntime writes no graph of which C can be made.", where=str(single), got="; ".join(reasons)
    )


def _build(
    cross: CrossCompiler, target: Target, signature: Signature, source: Path, out: Path, exact: bool
) -> tuple[Footprint, Path]:
    """The model's footprint on the target, and the folder with both programs."""
    programs = out / "executable"
    programs.mkdir()
    board = None if target.emulation is None else target.emulation.board
    found: dict[str, Footprint] = {}
    for name, compiler in ((TARGET, cross), (HOST, HOST_COMPILER)):
        work = out / "work" / name
        work.mkdir()
        found[name] = footprint(compiler, source, work)
        program = link(compiler, signature, source, work, found[name].stack_bytes + _STACK_MARGIN, board)
        shutil.move(program, programs / name)
        (programs / name).chmod(0o755)
    manifest = ProgramManifest(signature=signature, arch=target.arch, host_arch=host_arch(), exact=exact)
    (programs / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return found[TARGET], programs


def _answers(programs: Path, target: Target, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    native = not difference(target, platform.machine())
    if not native and target.emulation is None:
        raise ToolchainError(
            "Nothing here can run the program.",
            where=f"target {target.name}, emulation",
            expected="an emulator of its CPU",
        )
    return {
        TARGET: ProgramModel(programs, None if native else target.emulation).predict(x),
        HOST: ProgramModel(programs, twin=True).predict(x),
    }


def _same(answer: NDArray[np.float32], host: NDArray[np.float32], exact: bool, target: Target) -> dict[str, Any]:
    check_same(answer, host, exact, f"the CPU of {target.name}")
    return {
        "bit_equal": answer.tobytes() == host.tobytes(),
        "host_max_difference": float(np.abs(answer - host).max()),
    }


def _figures(own: Footprint, signature: Signature, target: Target, cross: CrossCompiler) -> DeviceFigures:
    libraries = "with what it calls of libm and libgcc" if cross.bare else "without the C library of the system"
    ends = sum(map(_bytes, (*signature.inputs, *signature.outputs)))
    outside = f"; without the frames of {', '.join(own.outside)}" if own.outside else ""
    notes = [
        f"flash: .text, .rodata and .data of the model, linked alone {libraries}",
        f"RAM: {own.data_bytes + own.bss_bytes:,} bytes of .data and .bss; {own.stack_bytes:,} bytes of the deepest "
        f"chain of stack frames below model(), from gcc's -fcallgraph-info=su{outside}; {ends:,} bytes of the arrays "
        "in which the caller has input and output",
    ]
    if target.emulation is not None and target.emulation.board is not None:
        notes.append(f"the emulated board {target.emulation.board} has more memory than the device")
    return DeviceFigures(
        source=f"linked:{cross.compiler}",
        ram_bytes=own.data_bytes + own.bss_bytes + own.stack_bytes + ends,
        flash_bytes=own.code_bytes + own.data_bytes,
        notes=tuple(notes),
    )


def _bytes(spec: TensorSpec) -> int:
    return math.prod(size or 1 for size in spec.shape) * np.dtype(spec.dtype).itemsize


def _reference(path: Path, target: Target, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxRuntimeModel(path, options).predict(x)
