"""Cures for the slow files of `benchmarks.slow_causes`: each changes exactly what a named cause blames.

A cause is shown to be the true one by taking it away: the file must then run as fast as one without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemill.runtimes.onnxruntime import session_options

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_INT8_OFFSET = 128
Samples = NDArray[np.float32]


def uint8_activations(model: onnx.ModelProto, samples: Samples) -> None:
    """int8 activations become uint8: scale unchanged, zero point + 128. No value changes."""
    edit = _Edit(model)
    for pair in edit.activation_pairs():
        for node in pair:
            zero = edit.values(node.input[2])
            if zero.dtype == np.int8:
                node.input[2] = edit.store((zero.astype(np.int64) + _INT8_OFFSET).astype(np.uint8))


def int8_weights(model: onnx.ModelProto, samples: Samples) -> None:
    """uint8 weights become int8: value and zero point - 128. No value changes."""
    edit = _Edit(model)
    for node in model.graph.node:
        stored = node.op_type == _DEQUANTIZE and node.input[0] in edit.constants
        if stored and edit.values(node.input[0]).dtype == np.uint8:
            for position in (0, 2):
                values = edit.values(node.input[position]).astype(np.int64)
                node.input[position] = edit.store((values - _INT8_OFFSET).astype(np.int8))


def symmetric_weights(model: onnx.ModelProto, samples: Samples) -> None:
    """fp32 weights of convolutions become int8 with zero point 0 and one scale per channel."""
    edit = _Edit(model)
    for node in list(model.graph.node):
        if node.op_type != "Conv" or node.input[1] not in edit.constants:
            continue
        values = edit.values(node.input[1])
        scales = np.maximum(np.abs(values).reshape(len(values), -1).max(axis=1), 1e-12).astype(np.float32) / 127
        stored = np.round(values / scales.reshape(-1, 1, 1, 1)).astype(np.int8)
        inputs = [edit.store(stored), edit.store(scales), edit.store(np.zeros(len(values), np.int8))]
        name = f"{node.input[1]}_dequantized"
        model.graph.node.append(helper.make_node(_DEQUANTIZE, inputs, [name], name=name, axis=0))
        node.input[1] = name
    _sort(model.graph)


def ranges_from_zero(model: onnx.ModelProto, samples: Samples) -> None:
    """uint8 ranges behind a Relu start at 0; their upper end stays."""
    edit = _Edit(model)
    for pair in edit.activation_pairs():
        maker = edit.maker.get(pair[0].input[0])
        zero = edit.values(pair[0].input[2])
        if maker is None or maker.op_type != "Relu" or zero.dtype != np.uint8:
            continue
        top = float(edit.values(pair[0].input[1])) * (255 - int(zero))
        scale, lowest = edit.store(np.array(top / 255, np.float32)), edit.store(np.array(0, np.uint8))
        for node in pair:
            node.input[1], node.input[2] = scale, lowest


def quantized_sums(model: onnx.ModelProto, samples: Samples) -> None:
    """Convolutions that feed an addition get a quantized output, with the range that the samples show."""
    edit = _Edit(model)
    feeding = [
        (node, position)
        for node in model.graph.node
        if node.op_type == "Add"
        for position, name in enumerate(node.input)
        if name in edit.maker and edit.maker[name].op_type == "Conv"
    ]
    for (node, position), span in zip(
        feeding, _ranges(model, [node.input[position] for node, position in feeding], samples), strict=True
    ):
        low, high = min(span[0], 0.0), max(span[1], 0.0)
        scale = np.float32((high - low) / 255)
        parameters = [edit.store(np.array(scale)), edit.store(np.array(round(-low / float(scale)), np.uint8))]
        source = node.input[position]
        names = [f"{source}_quantized", f"{source}_dequantized"]
        model.graph.node.extend(
            [
                helper.make_node(_QUANTIZE, [source, *parameters], names[:1], name=names[0]),
                helper.make_node(_DEQUANTIZE, [names[0], *parameters], names[1:], name=names[1]),
            ]
        )
        node.input[position] = names[1]
    _sort(model.graph)


def cure(source: Path, target: Path, cures: Iterable[Callable[[onnx.ModelProto, Samples], None]], x: Samples) -> Path:
    """Write a file with cures applied, one after another.

    Args:
        source: the slow file.
        target: the cured one.
        cures: functions of this module.
        x: float32 (N, ...), samples from which ranges are taken.
    """
    model = onnx.load(str(source))
    for change in cures:
        change(model, x)
    onnx.save_model(model, str(target))
    return target


class _Edit:
    """A graph with its constants and who makes which tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.maker = {name: node for node in model.graph.node for name in node.output}

    def values(self, name: str) -> NDArray[Any]:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def store(self, values: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = f"cured_{len(self.constants)}"
        tensor = numpy_helper.from_array(values, name)
        self._graph.initializer.append(tensor)
        self.constants[name] = self._graph.initializer[-1]
        return name

    def activation_pairs(self) -> list[list[onnx.NodeProto]]:
        """Every quantization of an activation, followed by its dequantizations."""
        pairs = []
        for node in self._graph.node:
            if node.op_type == _QUANTIZE and node.input[0] not in self.constants:
                readers = [other for other in self._graph.node if node.output[0] in other.input]
                pairs.append([node, *(other for other in readers if other.op_type == _DEQUANTIZE)])
        return pairs


def _ranges(model: onnx.ModelProto, names: list[str], samples: Samples) -> list[tuple[float, float]]:
    """Smallest and largest value of some tensors over samples."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"]
    )
    answers = session.run(names, {session.get_inputs()[0].name: samples})
    return [(float(values.min()), float(values.max())) for values in answers]


def _sort(graph: onnx.GraphProto) -> None:
    """Put the nodes into an order in which every tensor is made before it is read."""
    made_later = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if not made_later.intersection(node.input)]
        if not ready:
            raise ValueError("the graph has a cycle")
        for node in ready:
            made_later.difference_update(node.output)
        ordered += ready
        waiting = [node for node in waiting if not any(node is done for done in ready)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
