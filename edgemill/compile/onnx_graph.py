"""Reading ONNX graphs: what runs in which arithmetic, and what a device must know to run it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edgemill.errors import ToolchainError

DEFAULT_DOMAINS = ("", "ai.onnx")

_INTEGER_OPS = ("ConvInteger", "MatMulInteger", "MatMulInteger16", "MatMulIntegerToFloat", "QGemm", "QAttention")
_INTEGER_PREFIXES = ("QLinear", "DynamicQuantize")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_ZERO_POINT = 2
_QGEMM_OUTPUT_ZERO_POINT = 8
_RESULT_TYPES = {
    "DequantizeLinear": TensorProto.FLOAT,
    "MatMulIntegerToFloat": TensorProto.FLOAT,
    "DynamicQuantizeMatMul": TensorProto.FLOAT,
    "DynamicQuantizeLSTM": TensorProto.FLOAT,
    "ConvInteger": TensorProto.INT32,
    "MatMulInteger": TensorProto.INT32,
    "Shape": TensorProto.INT64,
    "Size": TensorProto.INT64,
    "ArgMax": TensorProto.INT64,
    "ArgMin": TensorProto.INT64,
}
_NO_ARITHMETIC = (
    "QuantizeLinear",
    "DequantizeLinear",
    "Cast",
    "Constant",
    "ConstantOfShape",
    "Identity",
    "Dropout",
    "Shape",
    "Size",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
    "Gather",
    "Split",
    "Concat",
    "Expand",
    "Tile",
    "Pad",
    "DepthToSpace",
    "SpaceToDepth",
)


def read_onnx(path: Path) -> ModelProto:
    """Read a single-file ONNX model.

    Raises:
        ToolchainError: it is no ONNX model, or keeps weights in other files.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf and onnx raise several unrelated kinds
        raise ToolchainError(
            "The file is not a readable ONNX model.", where=str(path), got=" ".join(str(error).split())[:200]
        ) from error
    if not model.graph.node or not model.opset_import:
        raise ToolchainError("The ONNX model is empty.", where=str(path), expected="a graph with nodes and an opset")
    outside = [tensor.name for tensor in model.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    if outside:
        raise ToolchainError(
            "The ONNX model keeps weights in other files.",
            where=str(path),
            expected="one file",
            got=", ".join(outside[:5]),
            remedy="save it with its weights inside",
        )
    return model


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Nodes of a graph and of the graphs inside its If, Loop and Scan nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)
            elif attribute.type == AttributeProto.GRAPHS:
                for inner in attribute.graphs:
                    yield from all_nodes(inner)


def op_counts(model: ModelProto) -> dict[str, int]:
    """How often each operator occurs, sorted by name."""
    counts = Counter(node.op_type for node in all_nodes(model.graph))
    return dict(sorted(counts.items()))


def opset_of(model: ModelProto) -> int:
    """Version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS), default=0)


def weight_bytes(model: ModelProto) -> int:
    """Bytes of all constants: initializers and the values of Constant nodes."""
    attributes = [attribute for node in all_nodes(model.graph) for attribute in node.attribute]
    constants = [attribute.t for attribute in attributes if attribute.HasField("t")]
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in (*model.graph.initializer, *constants))


def zero_point_types(model: ModelProto) -> set[str]:
    """numpy names of the types of activation zero points in QuantizeLinear nodes."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    found = set()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > _ZERO_POINT and node.input[_ZERO_POINT] in types:
            found.add(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(types[node.input[_ZERO_POINT]])).name)
    return found


def unfused_pairs(model: ModelProto) -> list[str]:
    """DequantizeLinear nodes that undo a QuantizeLinear: pairs that did not become an integer operator."""
    quantized = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return [
        node.name or node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    ]


def float_nodes(model: ModelProto) -> list[str]:
    """Nodes that calculate in floating point, as `operator name`.

    Element types are followed from inputs and weights through the graph: a node's result has the
    type of its first input unless it converts. Moving data counts as no calculation.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    found = []
    for node in model.graph.node:
        kind = _result_type(node, types)
        types.update(dict.fromkeys(node.output, kind))
        if kind in _FLOATS and node.op_type not in _NO_ARITHMETIC and not _is_integer(node):
            found.append(f"{node.op_type} {node.name or node.output[0]}")
    return found


def _is_integer(node: NodeProto) -> bool:
    return node.op_type in _INTEGER_OPS or node.op_type.startswith(_INTEGER_PREFIXES)


def _result_type(node: NodeProto, types: dict[str, int]) -> int:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    kind = types.get(node.input[0], TensorProto.UNDEFINED) if node.input else TensorProto.UNDEFINED
    if node.op_type == "QuantizeLinear":
        kind = types.get((*node.input, "", "")[_ZERO_POINT], TensorProto.UINT8)
    elif node.op_type in _RESULT_TYPES:
        kind = _RESULT_TYPES[node.op_type]
    elif node.op_type == "Cast":
        kind = attributes["to"].i
    elif node.op_type == "Constant" and "value" in attributes:
        kind = attributes["value"].t.data_type
    elif node.op_type == "QGemm" and len(node.input) <= _QGEMM_OUTPUT_ZERO_POINT:
        kind = TensorProto.FLOAT
    return int(kind)


def edge_quantization(model: ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and zero point of integer inputs and outputs of the graph, by name.

    Read from the DequantizeLinear behind an input and the QuantizeLinear before an output.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input}
    outputs = {value.name for value in model.graph.output}
    found: dict[str, tuple[float, int]] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in inputs:
            name = node.input[0]
        elif node.op_type == "QuantizeLinear" and node.output[0] in outputs:
            name = node.output[0]
        else:
            continue
        values = [numpy_helper.to_array(constants[key]) for key in node.input[1:3] if key in constants]
        if values and all(value.size == 1 for value in values):
            found[name] = (float(values[0].item()), int(values[1].item()) if len(values) > 1 else 0)
    return found
