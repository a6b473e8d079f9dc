"""Small random graphs, datasets and quantized graphs that the tests of repair share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemill.data.dataset import Dataset, SplitName, write_dataset
from edgemill.quantize import StaticSettings, static
from edgemill.quantize.calibrate import find_ranges, plan_calibration
from edgemill.quantize.repair.probe import Probe
from edgemill.recipe import Granularity, Preprocess
from edgemill.targets.spec import ActivationType, Int8Arithmetic, WeightType


class Maker:
    """Builds a graph node by node; the last tensor made is its output."""

    def __init__(self, shape: Sequence[int | str], seed: int = 0) -> None:
        self.shape, self.draw = shape, np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.last = "x"

    def constant(self, value: Any, name: str | None = None) -> str:
        name = name or f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                kind, inputs or [self.last], [output], name=name or f"{kind}{len(self.nodes)}", **attributes
            )
        )
        self.last = output
        return output

    def weights(self, *shape: int, spread: float = 1.0, axis: int = 0) -> np.ndarray:
        """Random weights; with a spread, channels along an axis have factors log-uniform in 1/spread..spread."""
        by = (
            np.exp(self.draw.uniform(-np.log(spread), np.log(spread), shape[axis]))
            if spread > 1
            else np.ones(shape[axis])
        )
        values = self.draw.normal(size=shape) / np.sqrt(np.prod(shape) / shape[axis])
        return (values * by.reshape([-1 if i == axis else 1 for i in range(len(shape))])).astype(np.float32)

    def conv(
        self, channels: int, outputs: int, kernel: int = 1, *, spread: float = 1.0, bias: bool = True, **more: Any
    ) -> str:
        group = more.get("group", 1)
        weight = self.weights(outputs, channels // group, kernel, kernel, spread=spread)
        inputs = [self.last, self.constant(weight)]
        if bias:
            inputs.append(
                self.constant((self.draw.normal(size=outputs) * np.abs(weight).max(axis=(1, 2, 3))).astype(np.float32))
            )
        return self.node("Conv", *inputs, **more)

    def product(self, channels: int, outputs: int, *, spread: float = 1.0) -> str:
        return self.node("MatMul", self.last, self.constant(self.weights(channels, outputs, spread=spread, axis=1)))

    @staticmethod
    def numpy(model: onnx.ModelProto, name: str) -> np.ndarray:
        return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))

    @staticmethod
    def replace(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
        next(tensor for tensor in model.graph.initializer if tensor.name == name).CopyFrom(
            numpy_helper.from_array(value, name)
        )

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs or (self.last,)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def answers(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """First output of a graph, as it is written."""
    name = model.graph.output[0].name
    return Probe(model, [name])(x)[name]


def difference(before: onnx.ModelProto, after: onnx.ModelProto, x: np.ndarray) -> float:
    """Largest difference of two graphs' answers, relative to the largest answer."""
    right, found = answers(before, x), answers(after, x)
    return float(np.abs(right - found).max() / max(np.abs(right).max(), 1e-3))


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def separable(spread: float = 1.0, seed: int = 0, bias: bool = True) -> onnx.ModelProto:
    """Conv, depthwise, pointwise, depthwise, mean, product for (N, 3, 8, 8)."""
    maker = Maker(("n", 3, 8, 8), seed)
    maker.conv(3, 8, 3, pads=[1, 1, 1, 1], spread=spread, bias=bias)
    maker.node("Relu")
    maker.conv(8, 8, 3, group=8, pads=[1, 1, 1, 1], spread=spread, bias=bias)
    maker.node("Relu")
    maker.conv(8, 12, 1, spread=spread, bias=bias)
    maker.node("Relu")
    maker.conv(12, 12, 3, group=12, strides=[2, 2], spread=spread, bias=bias)
    maker.node("Relu")
    maker.node("GlobalAveragePool")
    maker.node("Flatten")
    weight, offset = maker.constant(maker.weights(12, 5)), maker.constant(maker.draw.normal(size=5).astype(np.float32))
    maker.node("Gemm", maker.last, weight, offset)
    return maker.model()


def unbalanced(factor: float, seed: int = 0) -> onnx.ModelProto:
    """`separable` with every channel between two layers multiplied, and what reads it divided; the same answers."""
    model = separable(seed=seed)
    draw = np.random.default_rng(seed)
    layers = [node for node in model.graph.node if len(node.input) == 3]
    for first, second in itertools.pairwise(layers):
        weight, offset, reader = (Maker.numpy(model, name) for name in (*first.input[1:], second.input[1]))
        by = np.exp(draw.uniform(-np.log(factor), np.log(factor), len(offset))).astype(np.float32)
        column = by.reshape(-1, *[1] * (reader.ndim - 1))
        if reader.ndim == 4 and reader.shape[1] != 1:
            column = column.reshape(1, -1, 1, 1)
        Maker.replace(model, first.input[1], weight * by.reshape(-1, 1, 1, 1))
        Maker.replace(model, first.input[2], offset * by)
        Maker.replace(model, second.input[1], reader / column)
    return model


def dataset(folder: Path, shape: tuple[int, ...], count: int = 48, seed: int = 1) -> Dataset:
    """Correlated noise in every split."""
    draw = np.random.default_rng(seed)
    x = (draw.normal(size=(count, *shape)) + draw.normal(size=(count, *([1] * len(shape))))).astype(np.float32)
    folder.mkdir(parents=True)
    write_dataset(folder, dict.fromkeys(SplitName, x), None, Preprocess())
    return Dataset(folder)


def settings(
    granularity: Granularity = Granularity.PER_CHANNEL,
    *,
    reduce_range: bool = False,
    weights: WeightType = WeightType.INT8,
    activations: ActivationType = ActivationType.UINT8,
    **more: Any,
) -> StaticSettings:
    int8 = Int8Arithmetic(activations=activations, reduce_range=reduce_range, weights=weights)
    return StaticSettings(int8=int8, granularity=granularity, **more)


def quantized(model: onnx.ModelProto, data: Dataset, folder: Path, rule: StaticSettings) -> tuple[Any, Any]:
    """The prepared float graph, and its QDQ form."""
    folder.mkdir(parents=True, exist_ok=True)
    source, prepared, target = (folder / name for name in ("source.onnx", "prepared.onnx", "target.onnx"))
    onnx.save(model, str(source))
    static.prepare(source, prepared)
    how = plan_calibration(prepared, data, rule.calibration, 16, 1 << 30)
    ranges = find_ranges(prepared, data, rule.calibration, 99.9, how, lambda fraction, text: None)
    static.quantize_graph(prepared, target, ranges, rule)
    return onnx.load(str(prepared)), onnx.load(str(target))
