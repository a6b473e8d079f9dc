"""Groups of operators that change their format together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgemill.quantize import StaticSettings
from edgemill.quantize.mixed.groups import Group, find_groups, name_nodes, with_islands
from edgemill.quantize.static import prepare, quantize_graph
from edgemill.runtimes import open_model
from edgemill.targets.spec import ActivationType, Int8Arithmetic
from tests.mixed.graphs import conv, save

U8 = StaticSettings(int8=Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False))
SHAPE = ["n", 4, 6, 6]


def weights(*names: str, inputs: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    found = {}
    for name in names:
        found[f"{name}.w"] = (draw.normal(size=(4, inputs, 1, 1)) / 2).astype(np.float32)
        found[f"{name}.b"] = draw.normal(size=4).astype(np.float32)
    return found


def prepared(folder: Path, path: Path) -> tuple[Path, onnx.ModelProto]:
    target = folder / "prepared.onnx"
    prepare(path, target)
    model = onnx.load(str(target))
    if name_nodes(model):
        onnx.save(model, str(target))
    return target, model


def members(groups: tuple[Group, ...]) -> list[set[str]]:
    return [set(group.nodes) for group in groups]


def quantized(path: Path, target: Path, leave: tuple[str, ...] = ()) -> onnx.ModelProto:
    model = onnx.load(str(path))
    names = [value.name for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)]
    quantize_graph(path, target, dict.fromkeys(names, (0.0, 4.0)), U8, None, leave)
    return onnx.load(str(target))


class TestRules:
    def groups(self, tmp_path: Path, nodes: list, constants: dict, shape: list | None = None) -> tuple[Group, ...]:
        path = save(tmp_path / "model.onnx", nodes, constants, SHAPE, (nodes[-1].output[0], shape or SHAPE))
        return find_groups(prepared(tmp_path, path)[1])

    def test_a_residual_block(self, tmp_path: Path) -> None:
        nodes = [
            conv("a", "x", "a_y"),
            helper.make_node("Relu", ["a_y"], ["a_r"], name="a_relu"),
            conv("b", "a_r", "b_y"),
            conv("skip", "x", "skip_y"),
            helper.make_node("Add", ["b_y", "skip_y"], ["sum"], name="add"),
            helper.make_node("Relu", ["sum"], ["y"], name="sum_relu"),
        ]
        found = self.groups(tmp_path, nodes, weights("a", "b", "skip"))
        assert members(found) == [{"a", "a_relu"}, {"b"}, {"skip"}, {"add", "sum_relu"}]
        assert [group.weighted for group in found] == [True, True, True, False]
        assert [group.name for group in found] == ["a", "b", "skip", "add"]

    def test_swish_stays_with_its_convolution(self, tmp_path: Path) -> None:
        nodes = [
            conv("a", "x", "a_y"),
            helper.make_node("Sigmoid", ["a_y"], ["a_s"], name="sigmoid"),
            helper.make_node("Mul", ["a_y", "a_s"], ["a_m"], name="swish"),
            conv("b", "a_m", "y"),
        ]
        assert members(self.groups(tmp_path, nodes, weights("a", "b"))) == [{"a", "sigmoid", "swish"}, {"b"}]

    def test_concatenations_over_a_shared_input_go_together(self, tmp_path: Path) -> None:
        nodes = [
            conv("a", "x", "a_y"),
            helper.make_node("Concat", ["x", "a_y"], ["c1"], name="concat1", axis=1),
            conv("b", "c1", "b_y"),
            helper.make_node("Concat", ["x", "a_y", "b_y"], ["y"], name="concat2", axis=1),
        ]
        found = self.groups(tmp_path, nodes, weights("a") | weights("b", inputs=8), ["n", 12, 6, 6])
        assert members(found) == [{"a"}, {"concat1", "concat2"}, {"b"}]

    def test_moves_at_the_entry_go_with_their_reader(self, tmp_path: Path) -> None:
        nodes = [
            helper.make_node("Transpose", ["x"], ["t"], name="transpose", perm=[0, 1, 3, 2]),
            conv("a", "t", "a_y"),
            helper.make_node("MaxPool", ["a_y"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
            conv("b", "p", "y"),
        ]
        found = self.groups(tmp_path, nodes, weights("a", "b"), ["n", 4, 3, 3])
        assert members(found) == [{"transpose", "a", "pool"}, {"b"}]


def test_an_int8_island_without_weights_becomes_float() -> None:
    groups = (
        Group("a", ("a",), True, frozenset({"x", "u"})),
        Group("add", ("add",), False, frozenset({"u", "v"})),
        Group("pool", ("pool",), False, frozenset({"v", "w"})),
        Group("b", ("b",), True, frozenset({"w", "y"})),
    )
    assert with_islands(groups, {0, 3}) == {0, 1, 2, 3}
    assert with_islands(groups, {0}) == {0}
    assert with_islands(groups, {1}) == {1}
    assert with_islands(groups, ()) == frozenset()


def test_nodes_without_a_name_of_their_own_get_one(tmp_path: Path) -> None:
    nodes = [conv("a", "x", "a_y"), conv("b", "a_y", "b_y"), conv("c", "b_y", "y")]
    nodes[0].name, nodes[1].name, nodes[2].name = "", "Conv_0", "Conv_0"
    graph = helper.make_graph(nodes, "test", [], [])
    model = helper.make_model(graph)
    assert name_nodes(model)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == 3
    assert all(names)
    assert not name_nodes(model)


@st.composite
def graphs(draw: st.DrawFn) -> list[onnx.NodeProto]:
    """Random graphs of convolutions, activation functions, additions, products and pooling over 4 channels."""
    tensors, nodes = ["x"], []
    for index in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(["conv", "conv", "Relu", "Sigmoid", "Add", "Mul", "Softplus", "AveragePool"]))
        read = draw(st.sampled_from(tensors))
        write, name = f"t{index}", f"{kind}{index}"
        if kind == "conv":
            nodes.append(conv(f"w{index}", read, write))
        elif kind in {"Add", "Mul"}:
            nodes.append(helper.make_node(kind, [read, draw(st.sampled_from(tensors))], [write], name=name))
        elif kind == "AveragePool":
            nodes.append(helper.make_node(kind, [read], [write], name=name, kernel_shape=[3, 3], pads=[1] * 4))
        else:
            nodes.append(helper.make_node(kind, [read], [write], name=name))
        tensors.append(write)
    return nodes


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_groups_cover_every_quantized_operator_once(tmp_path_factory: pytest.TempPathFactory, nodes: list) -> None:
    folder = tmp_path_factory.mktemp("random")
    constants = weights(*(node.name for node in nodes if node.op_type == "Conv"))
    path, model = prepared(folder, save(folder / "m.onnx", nodes, constants, SHAPE, (nodes[-1].output[0], SHAPE)))
    groups = find_groups(model)
    names = [name for group in groups for name in group.nodes]
    assert len(names) == len(set(names))
    made = quantized(path, folder / "all.onnx")
    real = {name for node in made.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    reached = {
        node.name
        for node in made.graph.node
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"} and real & set(node.input)
    }
    assert {name for name in reached if not name.startswith("Softplus")} <= set(names)
    none = quantized(path, folder / "none.onnx", tuple(names))
    assert not [node for node in none.graph.node if node.op_type == "QuantizeLinear"]
    if groups:
        quantized(path, folder / "one.onnx", groups[0].nodes)
        x = np.ones((2, 4, 6, 6), np.float32)
        assert np.isfinite(open_model(folder / "one.onnx", "onnx").predict(x)).all()
