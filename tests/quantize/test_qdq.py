"""Rewriting an export with activation pairs into a graph that computes in 8 bits. No TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgemill.errors import ToolchainError
from edgemill.quantize.fold import fold
from edgemill.quantize.kernels import optimized_kernels
from edgemill.quantize.qdq import find_grid, quantize_export
from edgemill.targets.spec import ActivationType

RNG = np.random.default_rng(3)
STEP = 0.03
"""Of the answer's grid."""


def on_grid(shape: tuple[int, ...], axis: int, reach_top: bool = True) -> tuple[np.ndarray, np.ndarray]:
    steps = RNG.uniform(0.0005, 0.002, shape[axis]).astype(np.float32)
    counts = RNG.integers(-90, 91, shape)
    if reach_top:
        np.moveaxis(counts, axis, 0).reshape(shape[axis], -1)[:, 0] = 127
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return (counts * steps.reshape(view)).astype(np.float32), steps


class Net:
    """A graph put together node by node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes) -> str:
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def grid(self, tensor: str, scale: float, zero: int) -> str:
        s, z = self.constant(np.array(scale, np.float32)), self.constant(np.array(zero, np.uint8))
        return self.add("DequantizeLinear", self.add("QuantizeLinear", tensor, s, z), s, z)

    def model(self, output: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )


def residual_export() -> onnx.ModelProto:
    net = Net()
    x = net.grid("x", 0.03, 128)
    w1, _ = on_grid((8, 3, 3, 3), 0)
    w2, _ = on_grid((8, 1, 3, 3), 0, reach_top=False)  # as after folding a depthwise convolution with one scale
    w3, _ = on_grid((128, 5), 1)
    bias = net.constant((RNG.normal(size=8) / 4).astype(np.float32))
    a = net.add("Conv", x, net.constant(w1), bias, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    a = net.grid(net.add("Relu", a), 0.01, 0)
    b = net.add("Conv", a, net.constant(w2), group=8, pads=[1, 1, 1, 1], kernel_shape=[3, 3])
    b = net.grid(b, 0.005, 128)
    c = net.grid(net.add("Relu", net.add("Add", a, b)), 0.012, 0)
    c = net.add("MaxPool", c, kernel_shape=[2, 2], strides=[2, 2])
    c = net.add("Reshape", c, net.constant(np.array([-1, 128], np.int64)))
    c = net.add("MatMul", c, net.constant(w3))
    c = net.add("Add", c, net.constant(RNG.normal(size=5).astype(np.float32)))
    return net.model(net.grid(c, STEP, 128))


def answers(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.mark.parametrize("activations", list(ActivationType))
def test_everything_becomes_an_integer_kernel(activations: ActivationType, tmp_path: Path) -> None:
    source = residual_export()
    x = RNG.normal(size=(64, 3, 8, 8)).astype(np.float32)
    expected = answers(source, x)
    model = onnx.ModelProto()
    model.CopyFrom(source)
    report = quantize_export(model, activations)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "q.onnx")

    assert not report.float_nodes
    kernels = optimized_kernels(tmp_path / "q.onnx")
    assert kernels.unfused == ()
    assert kernels.float_compute == {}
    assert kernels.counts["QLinearConv"] == 2
    assert kernels.counts["QLinearAdd"] == 1
    assert kernels.counts["QGemm"] == 1

    weights = {t.name: t for t in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type in {"Conv", "Gemm"}]
    made_by = {o: n for n in model.graph.node for o in n.output}
    for node in convs:
        assert weights[made_by[node.input[1]].input[0]].data_type == TensorProto.INT8
        if len(node.input) > 2:
            assert weights[made_by[node.input[2]].input[0]].data_type == TensorProto.INT32
    assert not [t.name for t in weights.values() if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 8]

    found = answers(model, x)
    assert expected.std() > 10 * STEP
    assert np.abs(found - expected).max() <= 2.01 * STEP
    assert np.abs(found - expected).mean() < 0.2 * STEP


def test_both_activation_types_give_the_same_values() -> None:
    x = RNG.normal(size=(16, 3, 8, 8)).astype(np.float32)
    made = []
    source = residual_export()
    for activations in ActivationType:
        model = onnx.ModelProto()
        model.CopyFrom(source)
        quantize_export(model, activations)
        stored = {t.name: t for t in model.graph.initializer}
        kinds = {stored[n.input[2]].data_type for n in model.graph.node if n.op_type == "QuantizeLinear"}
        assert kinds == {TensorProto.UINT8 if activations is ActivationType.UINT8 else TensorProto.INT8}
        made.append(answers(model, x))
    # One of the two may round the other way where a sum lies between two steps.
    assert np.abs(made[0] - made[1]).max() <= 2.01 * STEP
    assert np.abs(made[0] - made[1]).mean() < 0.1 * STEP


def test_weights_off_any_grid_stay_float_and_are_named() -> None:
    net = Net()
    x = net.grid("x", 0.05, 128)
    weight = net.constant(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32))
    model = net.model(net.grid(net.add("Conv", x, weight, kernel_shape=[3, 3]), 0.1, 128))
    report = quantize_export(model, ActivationType.UINT8)
    assert report.quantized == []
    ((name, reason),) = report.float_nodes.items()
    assert name.startswith("Conv")
    assert "not on an 8-bit grid" in reason


def test_a_convolution_on_unquantized_input_stays_float() -> None:
    net = Net()
    weight, _ = on_grid((4, 3, 3, 3), 0)
    model = net.model(net.grid(net.add("Conv", "x", net.constant(weight), kernel_shape=[3, 3]), 0.1, 128))
    report = quantize_export(model, ActivationType.UINT8)
    assert list(report.float_nodes.values()) == ["its input is not quantized"]


def test_a_range_without_a_scale_is_refused() -> None:
    net = Net()
    model = net.model(net.grid("x", 0.0, 0))
    with pytest.raises(ToolchainError, match="grid"):
        quantize_export(model, ActivationType.UINT8)


def test_relu_stays_where_the_grid_goes_below_zero() -> None:
    net = Net()
    x = net.grid("x", 0.05, 128)
    model = net.model(net.grid(net.add("Relu", x), 0.05, 106))
    quantize_export(model, ActivationType.UINT8)
    assert [n.op_type for n in model.graph.node].count("Relu") == 1


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 6),
    width=st.integers(6, 40),
    top=st.integers(20, 127),
    factor=st.floats(1e-3, 1e3),
)
def test_find_grid_recovers_every_weight(seed: int, channels: int, width: int, top: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(-top, top + 1, (channels, width))
    scales = (rng.uniform(1e-3, 1, channels) * factor).astype(np.float32)
    weight = (counts.astype(np.float32) * scales[:, None]).astype(np.float32)
    grid = find_grid(weight, 0)
    assert grid is not None
    assert (grid > 0).all()
    stored = np.round(weight / grid[:, None])
    assert np.abs(stored).max() <= 127
    assert np.abs(stored * grid[:, None] - weight).max() <= 0.003 * grid.max()


def test_find_grid_keeps_zeros_and_dead_channels() -> None:
    weight, _ = on_grid((4, 5, 3, 3), 0)
    weight[2] = 0
    weight[0, 1] = 0
    grid = find_grid(weight, 0)
    assert grid is not None
    assert (grid > 0).all()
    stored = np.round(weight / grid[:, None, None, None])
    assert ((stored == 0) == (weight == 0)).all()


def test_fold_takes_in_normalization_and_dense_bias() -> None:
    net = Net()
    weight = net.constant(RNG.normal(size=(4, 3, 3, 3)).astype(np.float32))
    y = net.add("Conv", "x", weight, kernel_shape=[3, 3])
    parts = [net.constant(RNG.uniform(0.5, 2, 4).astype(np.float32)) for _ in range(4)]
    y = net.add("BatchNormalization", y, *parts, epsilon=1e-3)
    y = net.add("Mul", y, net.constant(RNG.uniform(1, 2, (4, 1, 1)).astype(np.float32)))
    y = net.add("Flatten", y)
    y = net.add("MatMul", y, net.constant(RNG.normal(size=(144, 4)).astype(np.float32)))
    y = net.add("Sub", y, net.constant(RNG.normal(size=4).astype(np.float32)))
    model = net.model(y)
    x = RNG.normal(size=(5, 3, 8, 8)).astype(np.float32)
    expected = answers(model, x)
    fold(model)
    assert [n.op_type for n in model.graph.node] == ["Conv", "Flatten", "Gemm"]
    np.testing.assert_allclose(answers(model, x), expected, rtol=1e-3, atol=1e-3)


def test_fold_leaves_a_vector_along_the_width_alone() -> None:
    net = Net()
    weight = net.constant(RNG.normal(size=(6, 3, 3, 3)).astype(np.float32))
    y = net.add("Conv", "x", weight, kernel_shape=[3, 3])
    # (6,) broadcasts over the last axis, which has 6 columns here, not over the 6 channels.
    y = net.add("Add", y, net.constant(RNG.normal(size=6).astype(np.float32)))
    model = net.model(y)
    x = RNG.normal(size=(5, 3, 8, 8)).astype(np.float32)
    expected = answers(model, x)
    fold(model)
    np.testing.assert_allclose(answers(model, x), expected, rtol=1e-5, atol=1e-5)
    assert "Add" in [n.op_type for n in model.graph.node]
