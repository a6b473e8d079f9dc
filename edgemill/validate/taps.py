"""Make the intermediate tensors of an ONNX file outputs, so that they can be looked at."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto

from edgemill.compile.onnx_graph import read_onnx
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options


def tap(source: Path, target: Path) -> dict[str, str]:
    """Write a copy of a graph, operators fused, that answers all tensors that depend on its input.

    Operators are fused first, because further outputs would keep them from being fused; a compiled file
    is fused already and stays as it is. What is left to do when the copy is loaded, the layout of the CPU
    at hand, does not change values; the caller checks that the answers stay.

    Returns:
        operator by tensor name, in order of calculation; the model's own outputs keep their places in front.

    Raises:
        ToolchainError: the file cannot be read or loaded.
    """
    options = session_options(threads=1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.qdqisint8allowed", "1")  # int8 activations are not for this host
    OnnxRuntimeModel(source, options)
    model = read_onnx(target)
    operators = {name: kind for name, kind in _calculated(model).items() if name}
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in operators if name not in present)
    onnx.save(model, str(target))
    return operators


def _calculated(model: ModelProto) -> dict[str, str]:
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    known = {entry.name for entry in graph.input} - constants
    operators: dict[str, str] = {}
    for node in graph.node:
        if known.intersection(node.input):
            known.update(node.output)
            operators |= dict.fromkeys(node.output, node.op_type)
    return operators


def operators_of_tflite(path: Path, threads: int = 1) -> dict[str, str]:
    """Operator by tensor name of a TFLite file, in order of calculation."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    names = {int(detail["index"]): str(detail["name"]) for detail in interpreter.get_tensor_details()}
    return {
        names[int(output)]: str(operator["op_name"])
        for operator in interpreter._get_ops_details()
        for output in operator["outputs"]
        if int(output) in names
    }
