"""SmoothQuant: outliers of activations move into the weights of the matrix products that read them.

After Xiao, Lin, Seznec, Wu, Demouth, Han: "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
Language Models" (ICML 2023), section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

from edgemill.quantize.onnx_graph import Editor, attribute
from edgemill.quantize.repair.linear import Floats, Linear, label, linear
from edgemill.quantize.repair.report import Report
from edgemill.quantize.repair.shapes import RESHAPES, Shape, keeps_last, shapes, value_readers
from edgemill.recipe import Repair

_LEAST = 1e-5
_EQUAL = 1.001
_PASSES = {"Dropout", "Identity", "LeakyRelu", "Relu"}
_BOTH = {"Add", "Sub"}


def smooth(model: onnx.ModelProto, maxima: Mapping[str, NDArray[np.float64]], alpha: float = 0.5) -> Report:
    """Smooth a prepared fp32 graph in place; its answers stay what they are.

    Where only matrix products with constant weights read a tensor X, channel j of X is divided by
    s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) and row j of the weights multiplied (equation 4). The division is
    folded into what makes X: the constants of a LayerNormalization or its single operators, the weights of
    another product (section 4.3); a tensor whose maker has no constants to fold into is left as it is.

    Args:
        model: prepared for quantization.
        maxima: largest magnitude of every channel on calibration samples, (channels,) by tensor; for the
            tensors of `smoothed_inputs`.
        alpha: how much of the difficulty moves to the weights, 0..1.

    Returns:
        for every group of products: how many `products` read the tensor, its `channels`, `largest_factor`,
        `spread_before` and `spread_after` (largest over median of the channels' maxima).
    """
    groups, left = _find(model)
    layers: dict[str, dict[str, float | int]] = {}
    editor = Editor(model)
    for group in groups:
        if group.tensor not in maxima:
            left[group.name] = "the largest values of its input are not known"
            continue
        most = maxima[group.tensor].astype(np.float64)
        weights = [numpy_helper.to_array(editor.constants[layer.node.input[1]]) for layer in group.readers]
        read = np.max(
            [layer.input_ranges(weight) for layer, weight in zip(group.readers, weights, strict=True)], axis=0
        ).astype(np.float64)
        alive = (most > 0) & (read > 0)
        by = np.where(alive, np.where(alive, most, 1.0) ** alpha / np.where(alive, read, 1.0) ** (1 - alpha), 1.0)
        by = np.where(alive, np.maximum(by, _LEAST), 1.0)
        # A common factor changes nothing but the scales, and may be far from 1.
        by /= np.exp(np.log(by).mean())
        largest = float(np.exp(np.abs(np.log(by)).max()))
        if largest < _EQUAL:
            left[group.name] = "its input needs no smoothing"
            continue
        for layer, weight in zip(group.readers, weights, strict=True):
            _write(editor, layer.node.input[1], layer.scale_inputs(weight.astype(np.float64), by))
        for fold in group.folds:
            _divide(editor, fold, by)
        layers[group.name] = {
            "products": len(group.readers),
            "channels": len(by),
            "largest_factor": largest,
            "spread_before": _spread(most),
            "spread_after": _spread(most / by),
        }
    return Report(Repair.SMOOTHQUANT, layers, left, {"alpha": alpha})


def smoothed_inputs(model: onnx.ModelProto) -> dict[str, int]:
    """Tensors whose largest values `smooth` wants to know, each with the dimension of its channels."""
    return {group.tensor: -1 for group in _find(model)[0]}


@dataclass(frozen=True)
class _Fold:
    """A constant whose channels are divided; the columns of the weights of a product."""

    constant: str
    layer: Linear | None = None


@dataclass(frozen=True)
class _Group:
    tensor: str
    readers: tuple[Linear, ...]
    folds: tuple[_Fold, ...]

    @property
    def name(self) -> str:
        return ", ".join(layer.name for layer in self.readers)


class _UndividedError(Exception):
    """Why a tensor cannot be divided."""


def _find(model: onnx.ModelProto) -> tuple[list[_Group], dict[str, str]]:
    editor = Editor(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    readers, known = value_readers(model), shapes(model)
    groups, left = [], {}
    tensors = [node.input[0] for node in model.graph.node if node.op_type in ("Gemm", "MatMul")]
    taken: set[str] = set()
    for tensor in dict.fromkeys(tensors):
        nodes = readers[tensor]
        name = ", ".join(label(node) for node in nodes if node.op_type in ("Gemm", "MatMul"))
        try:
            products = _products(editor, readers, tensor, nodes)
            walk = _Division(editor, makers, readers, known, products[0].inputs)
            walk.divide(tensor, None)
            walk.check(products)
        except _UndividedError as reason:
            left[name] = str(reason)
            continue
        if taken & set(walk.folds):
            left[name] = "what makes its input is divided for another product already"
            continue
        taken |= set(walk.folds)
        groups.append(_Group(tensor, products, tuple(walk.folds.values())))
    return groups, left


def _products(
    editor: Editor, readers: Mapping[str, list[NodeProto]], tensor: str, nodes: list[NodeProto]
) -> tuple[Linear, ...]:
    if tensor in editor.outputs:
        raise _UndividedError("its input is an output of the graph")
    found = []
    for node in nodes:
        if node.op_type not in ("Gemm", "MatMul") or node.input[0] != tensor or list(node.input).count(tensor) != 1:
            raise _UndividedError(f"{node.op_type} {label(node)} reads its input, too")
        weight = editor.value(node.input[1])
        if weight is None:
            raise _UndividedError(f"{label(node)} multiplies two activations")
        if len(readers[node.input[1]]) != 1 or node.input[1] in editor.outputs or weight.dtype != np.float32:
            raise _UndividedError(f"the weights of {label(node)} are shared or not float32")
        view = linear(node, weight.shape)
        if isinstance(view, str):
            raise _UndividedError(f"{label(node)}: {view}")
        found.append(view)
    return tuple(found)


class _Division:
    """Divides the last dimension of a tensor by folding the division into constants."""

    def __init__(
        self,
        editor: Editor,
        makers: Mapping[str, NodeProto],
        readers: Mapping[str, list[NodeProto]],
        known: Mapping[str, Shape],
        channels: int,
    ) -> None:
        self.editor, self.makers, self.readers, self.known, self.channels = editor, makers, readers, known, channels
        self.folds: dict[str, _Fold] = {}
        self.by: dict[str, set[int]] = {}

    def divide(self, tensor: str, reader: NodeProto | None) -> None:
        """Follow a tensor back to constants; `reader` is the node on whose behalf."""
        seen = tensor in self.by
        self.by.setdefault(tensor, set()).update([] if reader is None else [id(reader)])
        if seen:
            return
        if tensor in self.editor.constants:
            self._constant(tensor)
            return
        node = self.makers.get(tensor)
        if node is None:
            raise _UndividedError("its input is the input of the graph")
        if tensor in self.editor.outputs:
            raise _UndividedError(f"{label(node)} makes an output of the graph")
        self._through(node)

    def check(self, products: tuple[Linear, ...]) -> None:
        """Every reader of a divided tensor divides on, or is one of the products."""
        allowed = {id(layer.node) for layer in products}
        for tensor, known in self.by.items():
            for reader in self.readers.get(tensor, []):
                if id(reader) not in known | allowed:
                    raise _UndividedError(f"{label(reader)} reads {tensor}, too")

    def _through(self, node: NodeProto) -> None:
        kind = node.op_type
        if kind in ("Mul", "Div") and node.input[0] == node.input[1]:
            raise _UndividedError(f"its input comes from {kind} {label(node)} of a tensor with itself")
        if kind in _PASSES or (kind in RESHAPES and self._keeps_last(node)):
            self.divide(node.input[0], node)
        elif kind in _BOTH:
            for name in node.input:
                self.divide(name, node)
        elif kind == "Mul":
            self._factor(node)
        elif kind == "Div":
            self.divide(node.input[0], node)
        elif kind == "LayerNormalization":
            if attribute(node, "axis", -1) != -1:
                raise _UndividedError(f"LayerNormalization {label(node)} has an axis other than -1")
            for name in filter(None, node.input[1:]):
                self.divide(name, node)
        elif kind in ("Gemm", "MatMul"):
            self._product(node)
        else:
            raise _UndividedError(f"its input comes from {kind} {label(node)}")

    def _keeps_last(self, node: NodeProto) -> bool:
        return keeps_last(self.known.get(node.input[0], ()), self.known.get(node.output[0], ()))

    def _factor(self, node: NodeProto) -> None:
        """One factor of a product of tensors is enough: a constant, or else the one that can be divided."""
        ordered = sorted(node.input, key=lambda name: name not in self.editor.constants)
        for last, name in zip((False, True), ordered, strict=True):
            folds, by = dict(self.folds), {key: set(value) for key, value in self.by.items()}
            try:
                self.divide(name, node)
                return
            except _UndividedError:
                self.folds, self.by = folds, by
                if last:
                    raise

    def _product(self, node: NodeProto) -> None:
        weight = self.editor.value(node.input[1])
        if weight is None or weight.dtype != np.float32:
            raise _UndividedError(f"its input comes from {label(node)}, whose weights are not constant float32")
        view = linear(node, weight.shape)
        if isinstance(view, str) or view.outputs != self.channels:
            raise _UndividedError(f"its input comes from {label(node)}, whose channels cannot be followed")
        self.by.setdefault(node.input[1], set()).add(id(node))
        self.folds[node.input[1]] = _Fold(node.input[1], view)
        if len(node.input) > 2 and node.input[2]:
            self.divide(node.input[2], node)

    def _constant(self, name: str) -> None:
        value = self.editor.value(name)
        if value is None or value.dtype != np.float32 or not value.ndim or value.shape[-1] != self.channels:
            raise _UndividedError(f"{name} has not one value per channel")
        if name in self.editor.outputs:
            raise _UndividedError(f"{name} is an output of the graph")
        self.folds[name] = _Fold(name)


def _divide(editor: Editor, fold: _Fold, by: NDArray[np.float64]) -> None:
    value = numpy_helper.to_array(editor.constants[fold.constant]).astype(np.float64)
    _write(editor, fold.constant, value / by if fold.layer is None else fold.layer.scale_outputs(value, 1 / by))


def _write(editor: Editor, name: str, value: Floats) -> None:
    tensor = editor.constants[name]
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))


def _spread(most: NDArray[np.float64]) -> float:
    middle = float(np.median(most))
    return float(most.max() / middle) if middle > 0 else 0.0
