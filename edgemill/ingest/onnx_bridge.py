"""The ONNX bridge: an ONNX graph of standard operators rebuilt in Keras 2, layer by layer, with its weights.

An ONNX graph cannot be trained; the rebuilt model can, and the LiteRT converter reads it. Its input and
output have the shapes of the graph's, but inside it computes channels last (`onnx_bridge_layout`).
Nothing is taken on trust: `differing` runs both versions on the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto

from edgemill.ingest.bridge_layers import CannotBridgeError
from edgemill.ingest.compare import difference
from edgemill.ingest.loaded import Unbridged
from edgemill.ingest.onnx_bridge_gelu import find_gelu
from edgemill.ingest.onnx_bridge_graph import BATCH_SIZE, Graph, attribute
from edgemill.ingest.onnx_bridge_layout import Value, identity
from edgemill.ingest.onnx_bridge_values import VALUES, never_negative
from edgemill.ingest.onnx_bridge_weights import WEIGHTED
from edgemill.ingest.onnx_bridge_windows import WINDOWS
from edgemill.tf import keras, tf

_OPERATORS = {**VALUES, **WEIGHTED, **WINDOWS}
_FEW = 4


@dataclass
class OnnxBridge:
    """A finished or failed rebuild.

    Attributes:
        model: the Keras 2 model, None where something could not be bridged.
        unbridged: every operator that could not be, with the reason.
        values: the ONNX tensors that have a counterpart, in the order of the graph.
    """

    model: Any = None
    unbridged: list[Unbridged] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)


def bridge_onnx(model: onnx.ModelProto) -> OnnxBridge:
    """Rebuild an ONNX graph in Keras 2.

    Args:
        model: fp32, opset 17, one float32 input with the batch in front, weights inside.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    source = next(value for value in model.graph.input if value.name not in stored)
    dims = source.type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in list(dims)[1:])
    try:
        graph = Graph(model)
    except CannotBridgeError as error:
        return OnnxBridge(unbridged=[Unbridged(layer=source.name, kind="Constant", reason=str(error))])
    find_gelu(graph)
    symbol = keras.Input(shape, name=graph.reserve(source.name))
    graph.values[source.name] = identity(symbol)
    found = [item for node in graph.nodes if (item := _rebuild(graph, node)) is not None]
    missing = [name for name in graph.outputs if name not in graph.values]
    if missing and not found:
        found = [Unbridged(layer=name, kind="output", reason="does not depend on the input") for name in missing]
    if found:
        return OnnxBridge(unbridged=found)
    try:
        outputs = [_finished(graph, graph.values[name], name) for name in graph.outputs]
        twin = keras.Model(symbol, outputs[0] if len(outputs) == 1 else outputs, name="model")
    except (CannotBridgeError, ValueError) as error:
        return OnnxBridge(unbridged=[Unbridged(layer=graph.outputs[0], kind="output", reason=str(error)[:300])])
    return OnnxBridge(twin, [], graph.values)


def _rebuild(graph: Graph, node: NodeProto) -> Unbridged | None:
    """Make the counterpart of one node; what keeps it from having one, if that is not an operator before it."""
    if id(node) in graph.absorbed or all(name in graph.constants for name in node.output if name):
        return None
    known = all(name in graph.constants or name in graph.values for name in node.input if name)
    try:
        if node.op_type == "Shape" and known:
            _shape(graph, node)
        elif known and graph.is_constant(node):
            graph.fold(node)
        elif node.op_type not in _OPERATORS:
            raise CannotBridgeError("Keras 2 has no layer for this operator")
        elif known:
            made = _OPERATORS[node.op_type](graph, node)
            value, last = made if isinstance(made, tuple) else (made, node)
            graph.values[last.output[0]] = value
            _note(graph, node, last.output[0])
        return None
    except CannotBridgeError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  (Keras 2 raises anything on settings it does not support)
        reason = f"{type(error).__name__}: {error}"[:300]
    return Unbridged(layer=node.name or node.output[0], kind=node.op_type, reason=reason)


def _note(graph: Graph, node: NodeProto, made: str) -> None:
    if node.op_type in WEIGHTED or graph.trained & set(node.input):
        graph.trained.add(made)
    if made == node.output[0] and never_negative(graph, node):
        graph.nonnegative.add(made)


def _shape(graph: Graph, node: NodeProto) -> None:
    shape = graph.values[node.input[0]].shape
    start, end = attribute(node, "start", 0), attribute(node, "end", len(shape))
    if None in shape[1:]:
        raise CannotBridgeError(f"computes with free sizes: {shape}")
    sizes = [BATCH_SIZE, *(int(size or 0) for size in shape[1:])]
    graph.constants[node.output[0]] = np.asarray(sizes[start:end], np.int64)
    graph.of_batch.add(node.output[0])


def _finished(graph: Graph, value: Value, name: str) -> Any:
    """An output in the shape and order that ONNX has it in."""
    if value.indices:
        raise CannotBridgeError("answers with integers")
    return graph.arranged(value, range(value.rank), name)


def differing(made: OnnxBridge, path: Path, batches: list[NDArray[np.float32]], tolerance: float) -> list[Unbridged]:
    """Where the rebuilt model answers differently, empty if it does not.

    Args:
        made: a finished rebuild.
        path: the ONNX file.
        batches: inputs, float32 (N, *sample_shape) each.
        tolerance: largest difference relative to the range of the answers.
    """
    session = _session(onnx.load(str(path)), [])
    source = session.get_inputs()[0].name
    for x in batches:
        try:
            answers = tf.nest.flatten(made.model(x, training=False))
        except Exception as error:  # noqa: BLE001  (TensorFlow has kernels for a part of what Keras accepts)
            reason = f"the rebuilt model cannot be run: {error}"[:300]
            return [Unbridged(layer=made.model.name, kind=type(error).__name__, reason=reason)]
        for spec, mine, theirs in zip(session.get_outputs(), session.run(None, {source: x}), answers, strict=True):
            gap = difference(np.asarray(mine, np.float32), np.asarray(theirs, np.float32))
            if not gap.relative <= tolerance:
                return [_first_difference(made, path, x[:_FEW], tolerance, spec.name, gap.relative)]
    return []


def _first_difference(
    made: OnnxBridge, path: Path, x: NDArray[np.float32], tolerance: float, output: str, gap: float
) -> Unbridged:
    """The first operator whose answer differs."""
    model = onnx.load(str(path))
    makers = {name: node for node in model.graph.node for name in node.output}
    names = [name for name, value in made.values.items() if name in makers and not value.indices]
    session = _session(model, names)
    theirs = keras.Model(made.model.inputs, [made.values[name].tensor for name in names])(x, training=False)
    mine = session.run(names, {session.get_inputs()[0].name: x})
    for name, original, twin in zip(names, mine, theirs, strict=True):
        inner = difference(original, made.values[name].as_onnx(np.asarray(twin), original.shape))
        if not inner.relative <= tolerance:
            output, gap = name, inner.relative
            break
    node = makers[output]
    reason = f"the rebuilt model differs by {gap:.3g} of the output range"
    return Unbridged(layer=node.name or output, kind=node.op_type, reason=reason)


def _session(model: onnx.ModelProto, watched: list[str]) -> ort.InferenceSession:
    there = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name not in there)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
