"""Compile for onnxruntime: an offline-optimized graph that every device of the target's class can load.

The level is EXTENDED at most. LAYOUT and ALL rewrite convolutions into com.microsoft.nchwc, whose block
size is that of the CPU they were written on. Where even EXTENDED or BASIC would write something of this
host into the file, the next lower level is taken and the facts say why; the device's runtime then does
the rest when it loads the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings
from edgemill.compile.adapt import lower_opset
from edgemill.compile.contrib_ops import CONTRIB_OPS, OLDEST_RUNTIME
from edgemill.compile.onnx_graph import (
    DEFAULT_DOMAINS,
    all_nodes,
    edge_quantization,
    float_nodes,
    op_counts,
    opset_of,
    read_onnx,
    unfused_pairs,
    weight_bytes,
    zero_point_types,
)
from edgemill.compile.verify import INTEGER_SCHEMES, compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import InvariantError, ToolchainError
from edgemill.runtimes.onnxruntime import QUANTIZATION_KEY, OnnxRuntimeModel, session_options
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import ActivationType, Target

_LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
}
_CONTRIB = "com.microsoft"
_GROWTH = 1.05


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model for one target.

    Inputs:
        model: onnx, any number format.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: onnx, with its signature.

    Facts: `adapted` (what was rewritten to fit the oldest runtime), `level` (extended, basic or none),
    `level_reasons` (why no higher one), `op_counts`, `nodes`, `unfused_pairs` and `float_nodes` (names; how much
    of an int8 model did not become integer operators), `opset`, `ir_version`, `providers`, `runtime_version`,
    `source_size_bytes`, `size_bytes`, and of the verification `max_difference`, `mean_difference`, `agreement`,
    `compared`.

    Raises:
        ToolchainError: the model is unreadable, needs a newer runtime than the target has, or the
            compiled file does not give the model's answers.
    """
    target, source_path = settings.target, inputs["model"].path
    context.report(None, f"optimizing for {target.name}")
    _check_runtime(target)
    source, adapted = lower_opset(read_onnx(source_path), target, str(source_path))
    check_loadable(source, target, str(source_path))
    fitting = source_path
    if adapted:
        fitting = context.out / "adapted.onnx"
        onnx.save(source, str(fitting))
    model, level, reasons = optimize(fitting, source, target, context.out)
    if adapted:
        fitting.unlink()
    _finish(model, source, target, level)
    path = context.out / "model.onnx"
    onnx.save(model, str(path))
    context.report(0.7, "comparing with the model it was made from")
    compiled = OnnxRuntimeModel(path, session_options(threads=1))
    x = samples(Dataset(inputs["data"].path), compiled.signature)
    reference = reference_answers(source_path, target, x)
    facts = {
        "target": target.name,
        "adapted": adapted,
        "level": level,
        "level_reasons": reasons,
        "op_counts": op_counts(model),
        "nodes": sum(op_counts(model).values()),
        "unfused_pairs": unfused_pairs(model),
        "float_nodes": float_nodes(model) if settings.scheme in INTEGER_SCHEMES else [],
        "opset": opset_of(model),
        "ir_version": model.ir_version,
        "providers": compiled.session.get_providers(),
        "runtime_version": str(onnxruntime.__version__),
        "source_size_bytes": size_of(source_path),
        "size_bytes": size_of(path),
    } | compare(reference, compiled.predict(x), numbers_of(settings.scheme), str(path))
    return Outputs(
        files={"model": OutputFile(path, kind="onnx", signature=compiled.signature, facts=facts)}, facts=facts
    )


def optimize(path: Path, source: ModelProto, target: Target, folder: Path) -> tuple[ModelProto, str, list[str]]:
    """The highest portable level of offline optimization.

    Returns:
        The graph, the name of the level (extended, basic, none), and why higher levels were not taken.
    """
    reasons: list[str] = []
    for level, value in _LEVELS.items():
        scratch = folder / f"{level}.onnx"
        options = session_options(threads=1)
        options.graph_optimization_level = value
        options.optimized_model_filepath = str(scratch)
        _for_arithmetic_of(target, options)
        OnnxRuntimeModel(path, options)
        optimized = read_onnx(scratch)
        scratch.unlink()
        found = host_specific(source, optimized, target)
        if not found:
            return optimized, level, reasons
        reasons += [f"{level}: {reason}" for reason in found]
    shipped = ModelProto()
    shipped.CopyFrom(source)
    return shipped, "none", reasons


def host_specific(source: ModelProto, optimized: ModelProto, target: Target) -> list[str]:
    """What an optimized graph holds that belongs to the optimizing host and not to the target's class."""
    reasons = []
    before, after = op_counts(source), op_counts(optimized)
    if after.get("Cast", 0) > before.get("Cast", 0):
        reasons.append("this host lacks half-precision kernels, so onnxruntime put Cast nodes into the graph")
    if weight_bytes(optimized) > _GROWTH * max(weight_bytes(source), 1 << 10):
        reasons.append("constant folding made the weights larger")
    if added := zero_point_types(optimized) - zero_point_types(source):
        reasons.append(f"activations were given the type {', '.join(sorted(added))} for this host's kernels")
    foreign = sorted({node.domain for node in all_nodes(optimized.graph)} - {*DEFAULT_DOMAINS, _CONTRIB, "ai.onnx.ml"})
    if foreign:
        reasons.append(f"operators of {', '.join(foreign)}, which are tied to one CPU family")
    if newer := sorted(_contrib(optimized) - CONTRIB_OPS):
        reasons.append(f"{', '.join(newer)} is newer than onnxruntime {target.runtime.minimum}")
    return reasons


def check_loadable(model: ModelProto, target: Target, where: str) -> None:
    """Refuse a model that the target's oldest supported runtime cannot load.

    The IR version is no obstacle: `run` lowers it.

    Raises:
        ToolchainError: opset too new, unknown domain or operator.
    """
    opset = opset_of(model)
    if target.opset is not None and opset > target.opset:
        raise ToolchainError(
            f"The model needs a newer runtime than {target.name} has.",
            where=where,
            expected=f"opset {target.opset} at most (onnxruntime {target.runtime.minimum})",
            got=f"opset {opset}",
            remedy=f"export the model with opset {target.opset}, or convert it with onnx.version_converter",
        )
    own = {function.domain for function in model.functions}
    known = {*DEFAULT_DOMAINS, _CONTRIB, "ai.onnx.ml", *own}
    strange = sorted({f"{n.domain}:{n.op_type}" for n in all_nodes(model.graph) if n.domain not in known})
    strange += sorted(f"{_CONTRIB}:{name}" for name in _contrib(model) - CONTRIB_OPS if _CONTRIB not in own)
    if strange:
        raise ToolchainError(
            f"The model has operators that onnxruntime {target.runtime.minimum} does not have.",
            where=where,
            expected=f"operators of ONNX and {_CONTRIB}",
            got=", ".join(strange[:10]),
            remedy="export the model without custom operators",
        )


def reference_answers(path: Path, target: Target, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Answers of the uncompiled graph, node by node as it is written, float32 (N, ...)."""
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    _for_arithmetic_of(target, options)
    return OnnxRuntimeModel(path, options).predict(x)


def _for_arithmetic_of(target: Target, options: onnxruntime.SessionOptions) -> None:
    # Left alone, onnxruntime decides by the CPU it is running on whether int8 activations are kept. With
    # this, an x86 host wrote byte for byte the graph that onnxruntime 1.32 for aarch64 writes itself.
    keep = target.int8.activations is ActivationType.INT8
    options.add_session_config_entry("session.qdqisint8allowed", "1" if keep else "0")


def _finish(model: ModelProto, source: ModelProto, target: Target, level: str) -> None:
    used = {node.domain for node in all_nodes(model.graph)} | {function.domain for function in model.functions}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in DEFAULT_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))
    if target.ir_version is not None:
        model.ir_version = min(model.ir_version, target.ir_version)
    metadata = {entry.key: entry.value for entry in source.metadata_props}
    metadata |= {"edgemill.target": target.name, "edgemill.level": level}
    if quantization := edge_quantization(source):
        metadata[QUANTIZATION_KEY] = json.dumps(quantization, sort_keys=True)
    onnx.helper.set_model_props(model, metadata)


def _contrib(model: ModelProto) -> set[str]:
    return {node.op_type for node in all_nodes(model.graph) if node.domain == _CONTRIB}


def _check_runtime(target: Target) -> None:
    if _release(target.runtime.minimum) < _release(OLDEST_RUNTIME):
        raise InvariantError(
            "The list of operators does not reach back to the target's oldest runtime.",
            where=f"target {target.name}, runtime.minimum",
            expected=f"{OLDEST_RUNTIME} or newer",
            got=target.runtime.minimum,
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
