"""Compile for LiteRT: the file ships as the converter wrote it, once it is known that the runtime can run it.

LiteRT plans its memory and applies XNNPACK when it loads a file, so there is nothing to do offline.
What remains is to prove that the file loads, that it needs built-in operators only, in which
arithmetic it runs, how much of it XNNPACK takes, and that XNNPACK's kernels answer as LiteRT's own do.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings
from edgemill.compile.verify import INTEGER_SCHEMES, compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.runtimes.litert import RUNTIME, LiteRtModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

DELEGATE = "DELEGATE"
"""Name that LiteRT gives to a part of the graph which a delegate has taken."""

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")

Op = Mapping[str, Any]


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Check one TFLite model for one target.

    Inputs:
        model: tflite, any number format.
        data: dataset; its calibration split is what the delegate's answers are checked on.

    Outputs:
        model: tflite, unchanged, with its signature.

    Facts: `op_counts`, `nodes`, `delegated_nodes`, `undelegated` (operators that XNNPACK left to plain
    kernels), `float_nodes` (of an int8 model: operators that calculate in floating point), `inputs`
    and `outputs` (types), `runtime_version`, `size_bytes`, and of the comparison with plain
    kernels `max_difference`, `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: the file does not load, needs custom operators, or XNNPACK breaks it.
    """
    source = inputs["model"].path
    context.report(None, f"checking for {settings.target.name}")
    refuse_custom_operators(source)
    plain = LiteRtModel(source, threads=1, resolver=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    ops = _operators(plain)
    delegated = LiteRtModel(source, threads=1)
    undelegated = left_by_delegate(_operators(delegated))
    context.report(0.5, "comparing with plain kernels")
    x = samples(Dataset(inputs["data"].path), delegated.signature)
    facts = {
        "target": settings.target.name,
        "op_counts": dict(sorted(Counter(str(op["op_name"]) for op in ops).items())),
        "nodes": len(ops),
        "delegated_nodes": len(ops) - len(undelegated),
        "undelegated": [op["op_name"] for op in undelegated],
        "float_nodes": float_ops(ops) if settings.scheme in INTEGER_SCHEMES else [],
        "inputs": [spec.dtype for spec in delegated.signature.inputs],
        "outputs": [spec.dtype for spec in delegated.signature.outputs],
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(source),
    } | compare(plain.predict(x), delegated.predict(x), numbers_of(settings.scheme), str(source))
    path = context.out / "model.tflite"
    shutil.copyfile(source, path)
    return Outputs(
        files={"model": OutputFile(path, kind="tflite", signature=delegated.signature, facts=facts)}, facts=facts
    )


def refuse_custom_operators(path: Path) -> None:
    """Refuse a file that needs more than LiteRT's built-in operators.

    Raises:
        ToolchainError: naming the operators, or because the file is no TFLite model.
    """
    try:
        Interpreter(model_path=str(path))  # verifies the flatbuffer, which the reader below does not
        model = schema.Model.GetRootAs(path.read_bytes(), 0)
    except (ValueError, RuntimeError, OSError) as error:
        raise ToolchainError(
            "LiteRT cannot load the model.", where=str(path), got=" ".join(str(error).split())[:300]
        ) from error
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    custom = [code.CustomCode() for code in codes if code.BuiltinCode() == schema.BuiltinOperator.CUSTOM]
    if custom:
        raise ToolchainError(
            "The model needs operators that LiteRT does not have.",
            where=str(path),
            expected="built-in operators",
            got=", ".join(sorted((name or b"unnamed").decode(errors="replace") for name in custom)),
            remedy="convert the model without custom operators and without SELECT_TF_OPS",
        )


def float_ops(ops: list[Op]) -> list[str]:
    """Operators that calculate in floating point, as `NAME index`; conversions do not count."""
    return [
        f"{op['op_name']} {op['index']}"
        for op in ops
        if op["op_name"] not in _CONVERSIONS
        and any(np.issubdtype(kind, np.floating) for kind in op["result_types"] if kind is not None)
    ]


def left_by_delegate(ops: list[Op]) -> list[Op]:
    """Operators that no delegate has taken.

    LiteRT lists the original operators and, after them, one DELEGATE for each part that was taken.
    What such a part computes are the operators from its outputs back to its inputs.
    """
    original = [op for op in ops if op["op_name"] != DELEGATE]
    maker = {int(tensor): position for position, op in enumerate(original) for tensor in op["outputs"]}
    taken: set[int] = set()
    for part in ops:
        if part["op_name"] != DELEGATE:
            continue
        border = {int(tensor) for tensor in part["inputs"]}
        open_tensors = [int(tensor) for tensor in part["outputs"]]
        while open_tensors:
            position = maker.get(open_tensors.pop())
            if position is None or position in taken:
                continue
            taken.add(position)
            open_tensors += [int(tensor) for tensor in original[position]["inputs"] if int(tensor) not in border]
    return [op for position, op in enumerate(original) if position not in taken]


def _operators(model: LiteRtModel) -> list[Op]:
    operators: list[Op] = model.interpreter._get_ops_details()
    return operators
