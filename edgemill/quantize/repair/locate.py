"""Where the layers of a QDQ graph are, and which of them can be worked on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edgemill.quantize.onnx_graph import Editor
from edgemill.quantize.repair.linear import KINDS, Linear, label, linear
from edgemill.quantize.repair.quantized import STORED, Bias, Grid, Layer

_FULL, _REDUCED = 127, 64
_PASSES = {"Relu", "Clip"}


class _UnusableError(Exception):
    """Why a layer cannot be worked on."""


def clamp(editor: Editor, tensor: str) -> tuple[float, float]:
    """Values that a tensor of a QDQ graph is cut off at where it is quantized; infinite where it is not.

    A ReLU is a lower limit of 0, whether it is still a node or was absorbed by the quantizer.
    """
    reader = editor.only_consumer(tensor)
    while reader is not None and reader.op_type in _PASSES:
        reader = editor.only_consumer(reader.output[0])
    if reader is None or reader.op_type != "QuantizeLinear":
        return -np.inf, np.inf
    scale, zero = editor.value(reader.input[1]), editor.value(reader.input[2]) if len(reader.input) > 2 else None
    if scale is None or zero is None or scale.size != 1 or not np.issubdtype(zero.dtype, np.integer):
        return -np.inf, np.inf
    limits = np.iinfo(zero.dtype)
    step, origin = float(scale.item()), int(zero.item())
    return (limits.min - origin) * step, (limits.max - origin) * step


def find_layers(
    model: onnx.ModelProto, reference: onnx.ModelProto, reduce_range: bool
) -> tuple[list[Layer], dict[str, str]]:
    """Layers of a QDQ graph whose weights are quantized, in its order.

    Args:
        model: made by onnxruntime's quantizer; weights int8 or uint8.
        reference: the float graph that was quantized.
        reduce_range: whether weights stay within -64..64.

    Returns:
        the layers, and why others with quantized weights cannot be worked on.
    """
    editor, source = Editor(model), Editor(reference)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    makers = {name: node for node in model.graph.node for name in node.output}
    weighted = {node.input[1]: node for node in reference.graph.node if node.op_type in KINDS}
    found, left = [], {}
    for node in model.graph.node:
        pair = makers.get(node.input[1]) if node.op_type in KINDS else None
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in editor.constants:
            continue
        try:
            for name in (pair.output[0], *pair.input[:2]):
                if len(readers[name]) != 1:
                    raise _UnusableError(f"{name} is shared")
            found.append(_layer(editor, source, node, pair, weighted, reduce_range))
        except _UnusableError as reason:
            left[label(node)] = str(reason)
    return found, left


def _layer(
    editor: Editor,
    source: Editor,
    node: NodeProto,
    pair: NodeProto,
    weighted: dict[str, NodeProto],
    reduce_range: bool,
) -> Layer:
    origin = pair.input[0].removesuffix("_uint8").removesuffix("_quantized")
    weight = source.value(origin)
    stored, scale = editor.constants[pair.input[0]], editor.value(pair.input[1])
    zero = editor.value(pair.input[2]) if len(pair.input) > 2 and pair.input[2] else np.zeros((), np.int8)
    if weight is None or origin not in weighted or len(source.consumers(origin)) != 1:
        raise _UnusableError("its float weights are not found, or shared")
    if stored.data_type not in STORED or scale is None or zero is None or weight.shape != tuple(stored.dims):
        raise _UnusableError("its weights are not stored as int8 or uint8 with a constant scale")
    view = linear(node, weight.shape)
    if isinstance(view, str):
        raise _UnusableError(view)
    if scale.size not in (1, view.outputs) or zero.size not in (1, scale.size):
        raise _UnusableError(f"its weights have {scale.size} scales for {view.outputs} channels")
    shape = [1] * weight.ndim
    if zero.size > 1:
        shape[view.output_axis] = -1
    start = zero.astype(np.int32).reshape(shape)
    limits, most = np.iinfo(STORED[stored.data_type]), _REDUCED if reduce_range else _FULL
    lowest, highest = max(-most, int(limits.min - start.min())), min(most, int(limits.max - start.max()))
    grid = Grid(pair.input[0], pair.input[1], lowest, highest, start)
    return Layer(editor, view, weighted[origin], weight, grid, _bias(editor, node, view))


def _bias(editor: Editor, node: NodeProto, view: Linear) -> Bias | None:
    name = node.input[2] if len(node.input) > 2 else ""
    if not name:
        return None
    value, pair = editor.value(name), editor.producer(name)
    if value is not None:
        stored, scale, size = name, None, value.size
    elif pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in editor.constants:
        raise _UnusableError("its bias is not constant")
    else:
        stored, scale = pair.input[0], pair.input[1]
        held, step = editor.constants[stored], editor.value(scale)
        if held.data_type != TensorProto.INT32 or step is None or step.size not in (1, view.outputs):
            raise _UnusableError("its bias is not stored as int32 with the scales of its weights")
        size = int(np.prod(held.dims))
    if size != view.outputs or any(len(editor.consumers(one)) > 1 for one in (name, stored, scale) if one):
        raise _UnusableError("its bias is not one value per channel, or shared")
    return Bias(stored, scale)
