"""Compile for TensorFlow Lite Micro: the file ships as the converter wrote it, once it is known to run there.

The interpreter of the device, built for this host, loads the file, says how much memory it takes, and has to
give the integers of LiteRT's reference kernels.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from ai_edge_litert.interpreter import OpResolverType

from edgemill.artifact import Signature, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.litert import float_ops
from edgemill.compile.tflm_exact import compare_exactly
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.evidence import DeviceFigures
from edgemill.runtimes.convert import to_real
from edgemill.runtimes.litert import LiteRtModel
from edgemill.runtimes.tflm import RUNTIME, Arena, TflmModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

SOURCE = "simulated:tflite-micro"


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Check one TFLite model.

    Inputs:
        model: tflite, int8 with int8 input and output.
        data: dataset; its calibration split is what the interpreters are compared on.

    Outputs:
        model: tflite-micro, the same bytes, with its signature.

    Facts: `op_counts`, `nodes`, `inputs` and `outputs` (types), `runtime_version`, `reference_version` (of
    LiteRT), `size_bytes`, `arena_bytes` with its parts `arena_head_bytes` and `arena_tail_bytes`; of the comparison
    with LiteRT's reference kernels `bit_equal` (share of samples), `rounded_otherwise` (samples that differ by
    the rounding of FULLY_CONNECTED alone), `max_difference`, `mean_difference`, `agreement`, `compared`; and
    `device` (`DeviceFigures`).

    Raises:
        ToolchainError: the interpreter does not run the file, not all of it is int8, or it gives other
            integers than LiteRT.
    """
    source = inputs["model"].path
    context.report(None, f"loading for {settings.target.name}")
    model = TflmModel(source)
    ops = LiteRtModel(source, threads=1, resolver=OpResolverType.BUILTIN_REF).interpreter._get_ops_details()
    refuse_floats(model.signature, ops, source)
    x = samples(Dataset(inputs["data"].path), model.signature)
    context.report(0.2, "comparing with LiteRT's reference kernels")
    exact = compare_exactly(source, x)
    arena = model.arena()
    answer = model.signature.outputs[0]
    facts = {
        "target": settings.target.name,
        "op_counts": dict(sorted(Counter(str(op["op_name"]) for op in ops).items())),
        "nodes": len(ops),
        "inputs": [spec.dtype for spec in model.signature.inputs],
        "outputs": [spec.dtype for spec in model.signature.outputs],
        "runtime_version": RUNTIME.version(),
        "reference_version": metadata.version("ai-edge-litert"),
        "size_bytes": size_of(source),
        "arena_bytes": arena.total,
        "arena_head_bytes": arena.head,
        "arena_tail_bytes": arena.tail,
        "bit_equal": exact.equal / exact.compared,
        "rounded_otherwise": exact.rounded,
        "device": figures(arena, size_of(source)).model_dump(mode="json"),
    } | compare(
        to_real(exact.reference, answer), to_real(exact.answers, answer), numbers_of(settings.scheme), str(source)
    )
    path = context.out / "model.tflite"
    shutil.copyfile(source, path)
    return Outputs(
        files={"model": OutputFile(path, kind="tflite-micro", signature=model.signature, facts=facts)}, facts=facts
    )


def figures(arena: Arena, size_bytes: int) -> DeviceFigures:
    """What the model takes on a microcontroller."""
    return DeviceFigures(
        source=SOURCE,
        ram_bytes=arena.total,
        flash_bytes=size_bytes,
        notes=(
            "RAM is the interpreter's arena as counted on this host, whose pointers have 64 bits; a device of 32 bits "
            "needs somewhat less. Stack and the application's own buffers are not counted.",
            "Flash is the model's file; the code of the interpreter and its kernels is not counted.",
        ),
    )


def refuse_floats(signature: Signature, ops: list[Mapping[str, Any]], where: Path) -> None:
    """Refuse a model that does not calculate with 8-bit integers from its input to its output.

    Raises:
        ToolchainError: naming the inputs, outputs and operators that do otherwise.
    """
    edges = [f"{spec.name} ({spec.dtype})" for spec in (*signature.inputs, *signature.outputs) if spec.dtype != "int8"]
    if found := edges + float_ops(ops):
        raise ToolchainError(
            "The model is not int8 from its input to its output.",
            where=str(where),
            expected="int8 inputs and outputs, and no operator in floating point",
            got=", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else ""),
            remedy="quantize with int8_static or int8_qat",
        )
