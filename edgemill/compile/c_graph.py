"""The graph that C is generated from: one sample at a time, integers between its ends, every shape written down.

A generator of C takes a graph as it is written. From QDQ pairs emx-onnx-cgen makes float arithmetic with all
weights dequantized on the stack, so onnxruntime first fuses the pairs into integer operators (QLinearConv, QGemm,
...). Shapes of these are unknown to ONNX's own inference, so the graph is run once and they are written into it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, ValueInfoProto

from edgemill.compile.onnx_graph import DEFAULT_DOMAINS, all_nodes, read_onnx, weight_bytes
from edgemill.errors import ToolchainError
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options

_LEVELS = {
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
LEVELS = tuple(_LEVELS)
"""Levels of optimization, the highest first."""

_GROWTH = 1.05


def single_sample(path: Path) -> ModelProto:
    """An ONNX model with a free batch size, for one sample.

    Raises:
        ToolchainError: it cannot be read, or has another free dimension.
    """
    model = read_onnx(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if value.name in weights or size.dim_value > 0:
                continue
            if axis != 0:
                raise ToolchainError(
                    "C needs the size of every dimension beside the batch.",
                    where=f"{path}, input {value.name}, dimension {axis}",
                    got=size.dim_param or "free",
                    remedy="export the model with a fixed sample shape",
                )
            size.Clear()
            size.dim_value = 1
    for value in model.graph.output:  # follow from the input, and must not contradict it
        value.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def fused(path: Path, level: str, keep_int8: bool, folder: Path) -> ModelProto:
    """The graph as onnxruntime writes it at a level of optimization, with all shapes.

    Args:
        path: from `single_sample`.
        level: one of `LEVELS`.
        keep_int8: whether int8 activations stay int8, whatever this CPU likes better.
        folder: for what is written on the way.

    Raises:
        ToolchainError: onnxruntime cannot load or run the model.
    """
    written = folder / f"{level}.onnx"
    options = session_options(threads=1)
    options.graph_optimization_level = _LEVELS[level]
    options.optimized_model_filepath = str(written)
    options.add_session_config_entry("session.qdqisint8allowed", "1" if keep_int8 else "0")
    OnnxRuntimeModel(path, options)
    model = read_onnx(written)
    _write_shapes(model, folder)
    _leave_out_words(model)
    return model


def strange(source: ModelProto, model: ModelProto) -> str:
    """Why an optimized graph is of no use in C; empty where it is."""
    used = {node.domain for node in all_nodes(model.graph)}
    if foreign := sorted(used - {*DEFAULT_DOMAINS, "com.microsoft", "ai.onnx.ml"}):
        return f"operators of {', '.join(foreign)}, which are tied to one CPU family"
    if weight_bytes(model) > _GROWTH * max(weight_bytes(source), 1 << 10):
        return "constant folding made the weights larger"
    return ""


def _write_shapes(model: ModelProto, folder: Path) -> None:
    names = [name for node in model.graph.node for name in node.output if name]
    outputs = [value.name for value in model.graph.output]
    probe = ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in outputs)
    path = folder / "probe.onnx"
    onnx.save(probe, str(path))
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = OnnxRuntimeModel(path, options).session
    weights = {tensor.name for tensor in model.graph.initializer}
    feed = {entry.name: _zeros(entry) for entry in model.graph.input if entry.name not in weights}
    values = dict(zip([*outputs, *(n for n in names if n not in outputs)], session.run(None, feed), strict=True))
    found = {name: _described(name, value) for name, value in values.items()}
    del model.graph.value_info[:]
    del model.graph.output[:]
    model.graph.output.extend(found[name] for name in outputs)
    model.graph.value_info.extend(found[name] for name in names if name not in outputs)


def _zeros(entry: ValueInfoProto) -> np.ndarray:
    kind = onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    return np.zeros([size.dim_value for size in entry.type.tensor_type.shape.dim], kind)


def _described(name: str, value: object) -> ValueInfoProto:
    if not isinstance(value, np.ndarray):
        raise ToolchainError(
            "C has no such thing as a tensor of this kind.", where=f"tensor {name}", got=type(value).__name__
        )
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _leave_out_words(model: ModelProto) -> None:
    """Remove what would end in comments of the C: who wrote the graph, and what of."""
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = model.producer_name = model.producer_version = ""
    model.graph.name = "model"
    used = {node.domain for node in all_nodes(model.graph)}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain in DEFAULT_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(sorted(kept, key=lambda entry: entry.domain))
