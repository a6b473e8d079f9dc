"""From the ONNX export of a model under quantization to one that really computes in 8 bits.

tf2onnx writes the activation grids as QuantizeLinear / DequantizeLinear pairs, but leaves weights
that are on a grid as float32, and pairs where no runtime fuses them. Here weights become int8 and
biases int32 behind a DequantizeLinear, and pairs stand right before and after every operator.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgemill.errors import ToolchainError
from edgemill.quantize.fold import fold, output_axis
from edgemill.quantize.onnx_graph import Editor, attribute, moves_only
from edgemill.targets.spec import ActivationType

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Their answers are rounded to the grid of their input, as LiteRT does it.
_SAME_GRID = {"AveragePool", "Resize"}
_TOP = 127
_BIAS_TOP = 2**30
# Distance from the grid, in steps of it, that float32 arithmetic can make.
_OFF_GRID = 2e-3


@dataclass
class QdqReport:
    """What the rewriting did.

    Attributes:
        quantized: nodes whose weights are int8 now.
        float_nodes: nodes with weights that stayed float32, and why.
    """

    quantized: list[str] = field(default_factory=list)
    float_nodes: dict[str, str] = field(default_factory=dict)


def quantize_export(model: onnx.ModelProto, activations: ActivationType) -> QdqReport:
    """Turn the fp32 export of a model under quantization into int8, in place.

    Args:
        model: as tf2onnx writes it: uint8 pairs on activations, float32 weights that lie on a grid.
        activations: integer type of activations; both types stand for exactly the same values.

    Raises:
        ToolchainError: a pair is not as expected.
    """
    fold(model)
    editor = Editor(model)
    _set_activation_type(editor, activations)
    _absorb_relus(editor)
    _pull_pairs_up(editor)
    _absorb_relus(editor)
    _push_pairs_down(editor)
    report = QdqReport()
    for node in list(editor.graph.node):
        if node.op_type in _WEIGHTED and editor.value(node.input[1]) is not None:
            reason = _quantize_weights(editor, node)
            if reason is None:
                report.quantized.append(node.name)
            else:
                report.float_nodes[node.name] = reason
    editor.tidy()
    return report


def _set_activation_type(editor: Editor, activations: ActivationType) -> None:
    """Store the same grid in the wanted type: int8 zero points are 128 below uint8 ones."""
    done: dict[str, str] = {}
    for node in editor.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        zero = editor.value(node.input[2])
        scale = editor.value(node.input[1])
        if zero is None or scale is None or zero.dtype != np.uint8 or scale.size != 1 or not scale > 0:
            raise ToolchainError(
                "An activation grid in the ONNX export is not usable.",
                where=node.name,
                expected="one positive constant scale and a uint8 zero point",
                got=f"scale {scale}, zero point {zero}",
            )
        name = node.input[2]
        if name not in done:
            stored = zero if activations is ActivationType.UINT8 else (zero.astype(np.int16) - 128).astype(np.int8)
            done[name] = editor.constant(stored, f"{name}_{activations}")
        node.input[2] = done[name]


def _lowest(editor: Editor, quantize: NodeProto) -> bool:
    """Whether the grid begins at 0."""
    zero = editor.value(quantize.input[2])
    return zero is not None and int(zero) == np.iinfo(zero.dtype).min


def _absorb_relus(editor: Editor) -> None:
    """Drop a ReLU whose reader quantizes to a grid that has nothing below 0 (nor above a clip's maximum)."""
    for node in list(editor.graph.node):
        if node.op_type not in {"Relu", "Clip"}:
            continue
        reader = editor.only_consumer(node.output[0])
        if reader is None or reader.op_type != "QuantizeLinear" or not _lowest(editor, reader):
            continue
        if node.op_type == "Clip":
            limits = [editor.value(name) if name else None for name in (*node.input[1:], "", "")][:2]
            scale = editor.value(reader.input[1])
            top = np.inf if limits[1] is None else float(limits[1])
            if (limits[0] is not None and float(limits[0]) > 0) or float(np.asarray(scale)) * 255 > top * (1 + 1e-6):
                continue
        editor.remove(node)


def _pull_pairs_up(editor: Editor) -> None:
    """Where operator -> moving -> pair, put the same pair right behind the operator as well."""
    changed = True
    while changed:
        changed = False
        for node in list(editor.graph.node):
            if not moves_only(editor, node):
                continue
            reader = editor.only_consumer(node.output[0])
            source = editor.producer(node.input[0])
            if reader is None or reader.op_type != "QuantizeLinear" or source is None:
                continue
            if source.op_type == "DequantizeLinear" or editor.only_consumer(node.input[0]) is None:
                continue
            node.input[0] = editor.pair(node.input[0], reader.input[1], reader.input[2], node)
            changed = True


def _push_pairs_down(editor: Editor) -> None:
    """Where pair -> moving -> operator, put the same pair right before the operator as well."""
    for node in list(editor.graph.node):
        if not moves_only(editor, node) and node.op_type not in _SAME_GRID:
            continue
        source = editor.producer(node.input[0])
        readers = editor.consumers(node.output[0])
        if source is None or source.op_type != "DequantizeLinear" or source.input[0] in editor.constants or not readers:
            continue
        if any(reader.op_type == "QuantizeLinear" for reader in readers):
            continue
        moved = editor.pair(node.output[0], source.input[1], source.input[2], readers[0])
        for reader in readers:
            for i, name in enumerate(reader.input):
                if name == node.output[0]:
                    reader.input[i] = moved


def _quantize_weights(editor: Editor, node: NodeProto) -> str | None:
    """Put int8 weights and an int32 bias into a node. Returns why not, None when done."""
    source = editor.producer(node.input[0])
    if source is None or source.op_type != "DequantizeLinear":
        return "its input is not quantized"
    weight = editor.value(node.input[1])
    assert weight is not None
    axis = output_axis(node) % weight.ndim
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return "grouped transposed convolution"
    grid = find_grid(weight, axis)
    if grid is None:
        return "its weights are not on an 8-bit grid: the layer was left out of quantization-aware training"
    input_scale = float(np.asarray(editor.value(source.input[1])))
    bias = editor.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if len(node.input) > 2 and node.input[2] and bias is None:
        return "its bias is not constant"
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (weight.shape[axis],)).astype(np.float64)
        # A channel whose weights are negligible beside its bias: a coarser grid, so that the bias fits in 32 bits.
        grid = np.maximum(grid, (np.abs(bias) / (input_scale * _BIAS_TOP)).astype(np.float32))
    shape = [1] * weight.ndim
    shape[axis] = len(grid)
    stored = np.round(weight / grid.reshape(shape)).astype(np.int8)
    single = bool((grid == grid[0]).all())
    scale = grid[:1].reshape(()) if single else grid
    zero = np.zeros(scale.shape, np.int8)
    node.input[1] = _dequantized(editor, node, stored, scale, zero, node.input[1], axis)
    if bias is not None:
        steps = (np.float32(input_scale) * grid).astype(np.float32)
        bias_stored = np.round(bias / steps.astype(np.float64)).astype(np.int32)
        if single:
            steps = steps[:1].reshape(())
        name = _dequantized(editor, node, bias_stored, steps, np.zeros(steps.shape, np.int32), node.input[2], 0)
        node.input[2] = name
    return None


def _dequantized(
    editor: Editor, node: NodeProto, stored: NDArray[Any], scale: NDArray[Any], zero: NDArray[Any], name: str, axis: int
) -> str:
    real = editor.name(f"{name}_dq")
    inputs = [
        editor.constant(stored, f"{name}_{stored.dtype}"),
        editor.constant(scale.astype(np.float32), f"{name}_scale"),
        editor.constant(zero, f"{name}_zero_point"),
    ]
    attributes = {"axis": axis} if scale.ndim else {}
    editor.insert(
        node, helper.make_node("DequantizeLinear", inputs, [real], name=f"{real}/DequantizeLinear", **attributes)
    )
    return real


def find_grid(weight: NDArray[Any], axis: int) -> NDArray[np.float32] | None:
    """Step of the int8 grid on which every channel of a weight tensor lies.

    A tensor quantized with one scale has its largest magnitude at 127 steps, a channel that was
    quantized for itself too; a channel of a tensor with one scale, whose batch normalization was
    folded, has it at an unknown number of steps, which is searched for.

    Args:
        weight: float32.
        axis: of the output channels.

    Returns:
        positive float32 (channels,), equal values where one scale fits the whole tensor; None where
        some channel is on no grid of at most 127 steps.
    """
    channels = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    tops = np.abs(channels).max(axis=1)
    if not tops.any():
        return np.ones(len(tops), np.float32)
    whole = tops.max() / _TOP
    if _fits(channels, np.full(len(tops), whole)).all():
        return np.full(len(tops), whole, np.float32)
    steps = np.where(tops > 0, tops, tops[tops > 0].mean()) / _TOP
    for index in np.flatnonzero(~_fits(channels, steps)):
        candidates = tops[index] / np.arange(_TOP - 1, 0, -1)
        fitting = _fits(np.broadcast_to(channels[index], (len(candidates), channels.shape[1])), candidates)
        if not fitting.any():
            return None
        steps[index] = candidates[fitting.argmax()]
    found: NDArray[np.float32] = steps.astype(np.float32)
    return found


def _fits(rows: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.bool_]:
    counts = rows / steps[:, None]
    fits: NDArray[np.bool_] = np.abs(counts - np.round(counts)).max(axis=1) < _OFF_GRID
    return fits
