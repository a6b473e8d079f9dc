"""Tiny ONNX models with channels-last images, one a structure, for the tests of compilers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, CLASSES = 8, 3, 5
IMAGE, FEATURES = (SIDE, SIDE, CHANNELS), (12,)


class Builder:
    """Nodes and weights of one graph."""

    def __init__(self):
        self.nodes, self.weights, self.rng = [], [], np.random.default_rng(11)
        self.count = 0

    def weight(self, *shape, low=-0.5, high=0.5):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(self.rng.uniform(low, high, shape).astype(np.float32), name))
        return name

    def constant(self, values):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def node(self, kind, *inputs, **attributes):
        self.count += 1
        self.nodes.append(helper.make_node(kind, list(inputs), [f"t{self.count}"], name=f"n{self.count}", **attributes))
        return f"t{self.count}"

    def conv(self, x, into, out, group=1):
        w = self.weight(out, into // group, 3, 3)
        return self.node("Conv", x, w, self.weight(out), pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=group)

    def norm(self, x, channels):
        scale, shift, mean = (self.weight(channels) for _ in range(3))
        return self.node("BatchNormalization", x, scale, shift, mean, self.weight(channels, low=0.5, high=2.0))

    def head(self, x, channels):
        x = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Gemm", x, self.weight(CLASSES, channels), self.weight(CLASSES), transB=1)


def conv_norm_relu(b):
    x = b.node("Relu", b.norm(b.conv("x", CHANNELS, 8), 8))
    return b.head(x, 8)


def residual(b):
    x = b.node("Relu", b.conv("x", CHANNELS, 8))
    return b.head(b.node("Relu", b.node("Add", x, b.conv(x, 8, 8))), 8)


def depthwise(b):
    x = b.node("Relu", b.conv("x", CHANNELS, 6))
    return b.head(b.conv(x, 6, 6, group=6), 6)


def dense(b):
    x = b.node("Relu", b.node("Gemm", "x", b.weight(16, *FEATURES), b.weight(16), transB=1))
    return b.node("Gemm", x, b.weight(CLASSES, 16), b.weight(CLASSES), transB=1)


def softmax(b):
    return b.node("Softmax", dense(b), axis=-1)


STRUCTURES = {build.__name__: build for build in (conv_norm_relu, residual, depthwise, dense, softmax)}


def write(structure: str, path: Path) -> Path:
    """Write one of `STRUCTURES`, input "x" (batch, *sample_shape), output "y" (batch, CLASSES)."""
    b = Builder()
    shape = sample_shape(structure)
    if shape == IMAGE:
        b.nodes.append(helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2]))
    b.nodes.append(helper.make_node("Identity", [STRUCTURES[structure](b)], ["y"]))
    graph = helper.make_graph(
        b.nodes,
        structure,
        [helper.make_tensor_value_info("image" if shape == IMAGE else "x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        b.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def sample_shape(structure: str) -> tuple[int, ...]:
    return FEATURES if structure in ("dense", "softmax") else IMAGE


def samples(structure: str, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *sample_shape(structure))).astype(np.float32)
