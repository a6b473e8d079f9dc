"""An ONNX graph made ready to be followed: constants in one place, names for all nodes, shapes of all tensors."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgemill.errors import CheckpointError

_LARGEST_FOLDED = 1 << 26
"""Numbers; what would be larger stays computed."""
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}

Shape = tuple[int, ...]


class Prepared:
    """A model whose constants are all initializers.

    Attributes:
        model: a copy of the given model, to be changed.
        shapes: of every tensor for a batch of one, None where a size is not known before it runs.
        names: one for every node, unique, in the order of the graph.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self._constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._values: dict[str, NDArray[Any]] = {}
        _fold(self)
        self.shapes = _shapes(self.model)
        self.names = _names(self.graph.node)
        self.readers = Counter(name for node in self.graph.node for name in node.input)
        """How often a tensor is read."""

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph."""
        return self.model.graph

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is stored in the file."""
        return name in self._constants

    def value(self, name: str) -> NDArray[Any]:
        """Value of a constant."""
        if name not in self._values:
            self._values[name] = numpy_helper.to_array(self._constants[name])
        return self._values[name]

    def add(self, value: NDArray[Any], wish: str) -> str:
        """Store a constant and return its name."""
        taken = {name for node in self.graph.node for name in (*node.input, *node.output)} | set(self._constants)
        name, count = wish, 1
        while name in taken:
            count += 1
            name = f"{wish}_{count}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        self._constants[name] = self.graph.initializer[-1]
        return name

    def forget_unused(self) -> None:
        """Drop constants that no node reads and notes about shapes that may not hold any more."""
        read = {name for node in self.graph.node for name in node.input} | {item.name for item in self.graph.output}
        read |= captured(self.graph)
        kept = [tensor for tensor in self.graph.initializer if tensor.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        del self.graph.value_info[:]
        self._constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self._values.clear()


def read_model(path: Path) -> onnx.ModelProto:
    """Load an fp32 ONNX file.

    Raises:
        CheckpointError: it is no ONNX file that can be read, or has not one input, batch first.
    """
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and onnx raise anything on damaged files
        raise CheckpointError(
            "The ONNX file cannot be read.", where=path.name, got=f"{type(error).__name__}: {error}"[:500]
        ) from error
    stored = {tensor.name for tensor in model.graph.initializer}
    entries = [item for item in model.graph.input if item.name not in stored]
    if len(entries) != 1 or not entries[0].type.tensor_type.shape.dim:
        raise CheckpointError(
            "The ONNX graph must have one input with the batch first.",
            where=path.name,
            got=", ".join(item.name for item in entries) or "no input",
        )
    return model


def captured(graph: onnx.GraphProto) -> set[str]:
    """Tensors that subgraphs (If, Loop, Scan) read from around them."""
    found: set[str] = set()
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= {name for item in inner.node for name in item.input} | captured(inner)
    return found


def _names(nodes: Any) -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for node in nodes:
        name = node.name or (node.output[0] if node.output else node.op_type)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _fold(prepared: Prepared) -> None:
    """Compute what follows from constants alone."""
    graph = prepared.graph
    inputs = {item.name for item in graph.input}
    outputs = {item.name for item in graph.output}
    kept: list[NodeProto] = []
    for node in graph.node:
        ready = all(not name or (prepared.is_constant(name) and name not in inputs) for name in node.input)
        plain = node.domain in ("", "ai.onnx") and node.op_type not in _RANDOM
        plain = plain and not any(item.g.node or item.graphs for item in node.attribute)
        values = _computed(prepared, node) if ready and plain and not outputs & set(node.output) else None
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=False):
            if name:
                graph.initializer.append(numpy_helper.from_array(value, name))
                prepared._constants[name] = graph.initializer[-1]
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def _computed(prepared: Prepared, node: NodeProto) -> list[NDArray[Any]] | None:
    """Answers of a node on constants; None where they cannot be had."""
    names = [name for name in dict.fromkeys(node.input) if name]
    unknown = onnx.TensorProto.UNDEFINED
    graph = helper.make_graph(
        [node],
        "fold",
        [helper.make_tensor_value_info(name, prepared._constants[name].data_type, None) for name in names],
        [helper.make_value_info(name, helper.make_tensor_type_proto(unknown, None)) for name in node.output if name],
    )
    model = helper.make_model(graph, opset_imports=list(prepared.model.opset_import))
    try:
        answers = ReferenceEvaluator(model).run(None, {name: prepared.value(name) for name in names})
    except Exception:  # noqa: BLE001  # whatever cannot be computed here is computed when the model runs
        return None
    values = [np.asarray(answer) for answer in answers]
    if any(value.size > _LARGEST_FOLDED or value.dtype == object for value in values):
        return None
    return values


def _shapes(model: onnx.ModelProto) -> dict[str, Shape | None]:
    """Sizes of all tensors for a batch of one."""
    one = onnx.ModelProto()
    one.CopyFrom(model)
    stored = {tensor.name for tensor in one.graph.initializer}
    del one.graph.value_info[:]
    for item in one.graph.input:
        if item.name not in stored and item.type.tensor_type.shape.dim:
            item.type.tensor_type.shape.dim[0].dim_value = 1
    for item in one.graph.output:
        item.type.tensor_type.ClearField("shape")
    try:
        one = onnx.shape_inference.infer_shapes(one, strict_mode=False, data_prop=True)
    except Exception:  # noqa: BLE001  # then nothing is known, and everything is left whole
        return {}
    shapes: dict[str, Shape | None] = {}
    for item in (*one.graph.input, *one.graph.value_info, *one.graph.output):
        kind = item.type.tensor_type
        if not item.type.HasField("tensor_type") or not kind.HasField("shape"):
            shapes[item.name] = None
            continue
        known = all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in kind.shape.dim)
        shapes[item.name] = tuple(dim.dim_value for dim in kind.shape.dim) if known else None
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes
