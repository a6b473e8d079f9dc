"""Parameters and multiply-accumulates against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.errors import ToolchainError
from edgemill.ingest.canonical import canonicalize
from edgemill.ingest.compare import difference, probe
from edgemill.ingest.count import count
from edgemill.ingest.export import keras_to_onnx
from edgemill.ingest.graph import OnnxFunction
from edgemill.tf import fresh, keras

L = keras.layers


@pytest.mark.parametrize(
    ("shape", "layer", "macs", "parameters"),
    [
        ((8, 8, 3), L.Conv2D(5, 3), 36 * 5 * 27, 5 * 27 + 5),
        ((8, 8, 3), L.Conv2D(5, 3, strides=2, padding="same"), 16 * 5 * 27, 5 * 27 + 5),
        ((8, 8, 4), L.Conv2D(6, 3, groups=2, use_bias=False), 36 * 6 * 18, 6 * 18),
        ((8, 8, 3), L.DepthwiseConv2D(3, use_bias=False), 36 * 3 * 9, 27),
        ((8, 8, 3), L.SeparableConv2D(5, 3, use_bias=False), 36 * (27 + 15), 27 + 15),
        ((4, 4, 3), L.Conv2DTranspose(5, 2, strides=2), 16 * 3 * 5 * 4, 3 * 5 * 4 + 5),
        ((10, 3), L.Conv1D(4, 3, padding="causal"), 10 * 4 * 9, 4 * 9 + 4),
        ((7,), L.Dense(9), 63, 63 + 9),
        ((5, 7), L.Dense(9, use_bias=False), 5 * 63, 63),
        ((6, 3), L.LSTM(4), 6 * 16 * (3 + 4), None),
        ((6, 3), L.GRU(4, return_sequences=True), 6 * 12 * (3 + 4), None),
        ((6, 3), L.Bidirectional(L.LSTM(4)), 2 * 6 * 16 * (3 + 4), None),
    ],
)
def test_layer(tmp_path: Path, shape: tuple[int, ...], layer: Any, macs: int, parameters: int | None) -> None:
    fresh(0)
    model = keras.Sequential([keras.Input(shape), keras.layers.deserialize(keras.layers.serialize(layer))])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    keras_to_onnx(model, tmp_path / "m.onnx")
    x = probe(shape, 0, None)
    assert difference(model(x).numpy(), OnnxFunction(tmp_path / "m.onnx")(x)).relative < 1e-5
    found = count(onnx.load(tmp_path / "m.onnx"))
    assert found.macs == macs == sum(node.macs for node in found.nodes)
    assert found.uncounted == ()
    if parameters is not None:
        assert found.parameters == parameters
        assert sum(node.parameters for node in found.nodes) <= parameters


def test_free_size_needs_a_sample_shape(tmp_path: Path) -> None:
    fresh(0)
    keras_to_onnx(keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(2, 3)]), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert count(model, (6, 6, 1)).macs == 16 * 2 * 9
    with pytest.raises(ToolchainError, match="free"):
        count(model)


def test_canonical_form_drops_what_nothing_needs_and_ignores_old_names() -> None:
    def graph(suffix: str, extra: bool) -> onnx.ModelProto:
        weight = numpy_helper.from_array(np.ones((3, 3), np.float32), f"w__{suffix}")
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
        nodes = [
            helper.make_node("MatMul", ["x", f"w__{suffix}"], [f"a__{suffix}"], name=f"dense/MatMul__{suffix}"),
            helper.make_node("Relu", [f"a__{suffix}"], ["y"], name="relu"),
        ]
        if extra:
            nodes.insert(0, helper.make_node("Exp", ["x"], ["unused"]))
        return helper.make_model(helper.make_graph(nodes, f"g{suffix}", [x], [y], [weight]))

    first, second = graph("17", False), graph("4", True)
    canonicalize(first)
    canonicalize(second)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert [node.name for node in first.graph.node] == ["dense/MatMul", "relu"]
    assert [tensor.name for tensor in first.graph.initializer] == ["dense/MatMul.weight"]
    onnx.checker.check_model(first, full_check=True)
