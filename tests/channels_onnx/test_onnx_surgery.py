"""Channels of ONNX graphs: what is zero can go without a change, what cannot be followed stays and is named."""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))

from onnx_graphs import BLOCKS, HEADS, Builder, random_graph

from edgemill.channels.book import Role
from edgemill.channels.cost import MacsCost
from edgemill.channels.onnx_graph import follow
from edgemill.channels.onnx_surgery import remove
from edgemill.runtimes.onnxruntime import session_options

MAKING = {Role.WRITES, Role.FILTERS, Role.NORMALIZES, Role.FOLLOWS}
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def answer(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1))
    return session.run(None, {"x": x})[0]


def zeroed(channels, gone, roles):
    """The graph in which weights along the channels are zero."""
    model = onnx.ModelProto()
    model.CopyFrom(channels.prepared.model)
    for cut in channels.map.cuts:
        if cut.role not in roles:
            continue
        name = model.graph.node[cut.layer.index].input[int(cut.attribute)]
        tensor = next(item for item in model.graph.initializer if item.name == name)
        value = np.moveaxis(numpy_helper.to_array(tensor).copy(), cut.axis, 0)
        value[gone[cut.atoms]] = 0
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(np.moveaxis(value, 0, cut.axis)), name))
    return model


def some(channels, seed):
    """About half of the atoms of every group, never all."""
    gone = np.zeros(channels.map.book.atoms.count, bool)
    random = np.random.default_rng(seed)
    for group in channels.map.groups:
        count = int(random.integers(0, len(group.atoms)))
        gone[random.choice(group.atoms, count, replace=False)] = True
    return gone


def same(a, b):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(np.abs(a).max())))


@SLOW
@given(
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4),
    st.sampled_from(sorted(HEADS)),
    st.integers(0, 10_000),
    st.sampled_from([MAKING, {Role.READS}]),
)
def test_removing_zero_channels_changes_nothing(blocks, head, seed, roles):
    model = random_graph(blocks, head, seed)
    channels = follow(model)
    gone = some(channels, seed)
    whole = zeroed(channels, gone, roles)
    again = follow(whole)
    assert [group.name for group in again.map.groups] == [group.name for group in channels.map.groups]
    x = np.random.default_rng(seed).normal(size=(3, 3, 6, 6)).astype(np.float32)
    pruned = remove(again, gone)
    onnx.checker.check_model(pruned, full_check=True)
    same(answer(whole, x), answer(pruned, x))
    if gone.any():
        before, after = (sum(np.prod(t.dims) for t in item.graph.initializer) for item in (whole, pruned))
        assert after < before


@pytest.mark.parametrize("block", sorted(set(BLOCKS) - {"groups", "split", "shuffle", "spatial_gate"}))
def test_every_followed_block_leaves_something_to_remove(block):
    channels = follow(random_graph([block], "pooled", 1))
    made_by = {name for group in channels.map.groups for name in group.layers}
    kernels = {use.layer.name for use in channels.map.uses}
    last = [use.layer.name for use in channels.map.uses][-1]
    if block == "run_time_shape":
        assert any("run time" in (group.reason or "") for group in channels.map.whole)
        return
    depthwise = {use.layer.name for use in channels.map.uses if use.shape.kind == "depthwise"}
    fixed = {use.layer.name for use in channels.map.uses if use.shape.kind == "dense" and block == "positions"}
    assert made_by == kernels - {last} - depthwise - fixed


@pytest.mark.parametrize(
    ("block", "word"),
    [("groups", "2 groups"), ("split", "Split"), ("shuffle", "Reshape"), ("spatial_gate", "ReduceMean")],
)
def test_what_cannot_be_followed_is_named(block, word):
    channels = follow(random_graph([block], "pooled", 1))
    assert any(word in (group.reason or "") for group in channels.map.whole)


def test_the_answers_stay_whole():
    channels = follow(random_graph(["residual"], "pooled", 1))
    whole = {name for group in channels.map.whole for name in group.layers}
    assert any(name.startswith("Gemm") for name in whole)


def test_residual_chain_is_one_group():
    b = Builder(0)
    x = b.conv("x", 8)
    for _ in range(3):
        x = b.node("Add", b.conv(b.node("Relu", x), 8), x)
    model = b.model(b.node("Gemm", b.node("Flatten", b.node("GlobalAveragePool", x)), b.weights(8, 2), channels=2))
    (group,) = follow(model).map.groups
    assert len(group.layers) == 4
    assert len(group.atoms) == 8


def test_shared_weights_are_left_whole():
    b = Builder(0)
    w = b.weights(4, 3, 1, 1)
    one, other = (b.node("Conv", "x", w, channels=4) for _ in range(2))
    model = b.model(b.conv(b.node("Concat", one, other, axis=1, channels=8), 2), rank=4)
    channels = follow(model)
    assert not channels.map.groups


def test_a_shared_constant_is_cut_in_its_own_way_everywhere():
    b = Builder(3)
    numbers = [b.constant(np.ones(6, np.float32)) for _ in range(2)]
    x = b.conv("x", 6)
    x = b.node("BatchNormalization", x, numbers[0], numbers[1], numbers[1], numbers[0])
    y = b.conv(b.node("Relu", x), 6)
    y = b.node("BatchNormalization", y, numbers[0], numbers[1], numbers[1], numbers[0])
    model = b.model(b.conv(y, 2), rank=4)
    channels = follow(model)
    gone = np.zeros(channels.map.book.atoms.count, bool)
    gone[channels.map.groups[0].atoms[:3]] = True
    whole = zeroed(channels, gone, {Role.READS})
    x = np.ones((1, 3, 6, 6), np.float32)
    same(answer(whole, x), answer(remove(follow(whole), gone), x))


def test_cost_is_that_of_what_is_left():
    model = random_graph(["depthwise", "concat", "squeeze"], "pooled", 5)
    channels = follow(model)
    before = sum(MacsCost().layer(use.shape) for use in channels.map.uses)
    gone = some(channels, 1)
    expected = sum(
        MacsCost().layer(use.shape.with_channels(int((~gone[use.inputs]).sum()), int((~gone[use.outputs]).sum())))
        for use in channels.map.uses
    )
    after = sum(MacsCost().layer(use.shape) for use in follow(remove(channels, gone)).map.uses)
    assert after == expected < before


def test_weights_made_from_constants_are_followed():
    b = Builder(0)
    stored = b.node("Identity", b.weights(3, 3, 5, 3))
    w = b.node("Transpose", stored, perm=[2, 0, 1, 3])
    x = b.node("Conv", "x", w, channels=5, kernel_shape=[3, 3], pads=[1] * 4)
    channels = follow(b.model(b.conv(x, 2), rank=4))
    assert [len(group.atoms) for group in channels.map.groups] == [5]


hostile_shapes = st.lists(st.one_of(st.integers(-3, 9), st.none()), min_size=0, max_size=5)
operators = st.sampled_from(
    [schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == "" and not schema.deprecated]
    + ["MyOwnOperator"]
)


@SLOW
@given(
    st.lists(st.tuples(operators, st.lists(st.integers(0, 8), max_size=4), st.integers(0, 3)), max_size=8),
    hostile_shapes,
    st.sampled_from(["", "com.example"]),
    st.integers(0, 100),
)
def test_hostile_graphs_are_left_whole_without_a_traceback(steps, shape, domain, seed):
    b = Builder(seed)
    names = ["x", b.weights(4, 3, 3, 3), b.weights(4), b.constant(np.array([0, -1])), b.conv("x", 4)]
    for kind, inputs, axis in steps:
        chosen = [names[i % len(names)] for i in inputs]
        attributes = {"axis": axis} if axis else {}
        own = domain if kind == "MyOwnOperator" else ""
        b.nodes.append(helper.make_node(kind, chosen, [f"h{len(b.nodes)}"], domain=own, **attributes))
        names.append(b.nodes[-1].output[0])
    model = b.model(names[-1])
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6] if seed % 2 else shape))
    channels = follow(model)
    assert all(group.reason for group in channels.map.whole)


def test_conditional_parts_are_left_whole():
    b = Builder(0)
    x = b.conv("x", 4)
    flag = b.constant(np.array(True))
    inner = [helper.make_node("Relu", [x], ["inner"])]
    part = helper.make_graph(inner, "part", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)])
    y = b.node("If", flag, channels=4, then_branch=part, else_branch=part)
    channels = follow(b.model(b.conv(y, 2), rank=4))
    assert not channels.map.groups
