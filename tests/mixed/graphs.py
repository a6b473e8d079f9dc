"""ONNX graphs for the tests of mixed precision, made without a training framework."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from edgemill.data.dataset import Dataset, SplitName
from edgemill.runtimes import open_model

FACTOR = 40.0
WIDTH = 16


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: Mapping[str, Any],
    entry: Sequence[Any],
    answer: tuple[str, Sequence[Any]],
) -> Path:
    """Write a graph with one input `x` and one output."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(entry))],
        [helper.make_tensor_value_info(answer[0], TensorProto.FLOAT, list(answer[1]))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def conv(name: str, read: str, write: str, **attributes: Any) -> NodeProto:
    """Convolution with weights NAME.w and bias NAME.b."""
    return helper.make_node("Conv", [read, f"{name}.w", f"{name}.b"], [write], name=name, **attributes)


def features(path: Path, places: Collection[int] = ()) -> tuple[list[NodeProto], dict[str, Any]]:
    """conv 3x3 - depthwise 3x3 - conv 1x1 - depthwise 3x3, stride 2 - conv 1x1, each with ReLU, then flat (N, 256)."""
    draw = np.random.default_rng(5)
    nodes = [helper.make_node("Transpose", ["x"], ["image"], name="to_nchw", perm=[0, 3, 1, 2])]
    constants: dict[str, Any] = {}
    plan = [("stem", 1, 3, 1, 1), ("depth0", WIDTH, 3, WIDTH, 1), ("point0", WIDTH, 1, 1, 1)]
    plan += [("depth1", WIDTH, 3, WIDTH, 2), ("point1", WIDTH, 1, 1, 1)]
    last, undo = "image", np.ones(1)
    for place, (name, channels, size, groups, stride) in enumerate(plan):
        shape = (WIDTH, channels // groups, size, size)
        weights = draw.normal(size=shape) / np.sqrt(channels // groups * size * size)
        weights = weights / (undo.reshape(-1, 1, 1, 1) if groups > 1 else undo.reshape(1, -1, 1, 1))
        by = np.exp(draw.uniform(-np.log(FACTOR), np.log(FACTOR), WIDTH))
        undo = by if place in places else np.ones(WIDTH)
        constants[f"{name}.w"] = (weights * undo.reshape(-1, 1, 1, 1)).astype(np.float32)
        constants[f"{name}.b"] = (draw.normal(size=WIDTH) * 0.1 * undo).astype(np.float32)
        pads = [size // 2] * 4
        nodes.append(conv(name, last, f"{name}_y", group=groups, strides=[stride] * 2, pads=pads))
        nodes.append(helper.make_node("Relu", [f"{name}_y"], [f"{name}_r"], name=f"{name}_relu"))
        last = f"{name}_r"
    nodes.append(helper.make_node("Flatten", [last], ["flat"], name="flatten"))
    return nodes, constants


def classifier(path: Path, data: Dataset, places: Collection[int] = ()) -> None:
    """Random features of healthy channels, a trained head; then channels behind the given convolutions rescaled.

    Rescaling changes no answer of the float network: what reads the channels undoes it. The last convolution
    (4) is not to be given: the head does not undo it.
    """
    nodes, constants = features(path)
    plain = save(path.with_suffix(".features.onnx"), nodes, constants, ["n", 8, 8, 1], ("flat", ["n", 256]))
    x = open_model(plain, "onnx").predict(data.features(SplitName.TRAIN))
    head = LogisticRegression(max_iter=300).fit(x, data.labels(SplitName.TRAIN))
    nodes, constants = features(path, places)
    constants |= {"head.w": head.coef_.astype(np.float32), "head.b": head.intercept_.astype(np.float32)}
    nodes.append(helper.make_node("Gemm", ["flat", "head.w", "head.b"], ["logits"], name="head", transB=1))
    save(path, nodes, constants, ["n", 8, 8, 1], ("logits", ["n", 10]))
