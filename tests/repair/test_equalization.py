"""Cross-layer equalization: the float answers stay, the ranges become equal, odd graphs are left alone and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.quantize.repair.chains import find_pairs
from edgemill.quantize.repair.equalization import clip_inputs, equalize
from edgemill.quantize.repair.probe import highest
from tests.repair.graphs import Maker, copied, difference, separable


class Batch:
    """Samples in one batch; stands where `Samples` reads a dataset."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.size, self.batch_size = x, len(x), len(x)

    def __iter__(self) -> Any:
        yield self.x


def sample(seed: int = 0, shape: tuple[int, ...] = (3, 8, 8), count: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


@st.composite
def chains(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolutions with what may stand between, and products at the end."""
    maker = Maker(("n", 3, 8, 8), draw(st.integers(0, 999)))
    spread = draw(st.sampled_from([1.0, 5.0, 30.0]))
    channels = 3
    for _ in range(draw(st.integers(1, 4))):
        depthwise = draw(st.booleans())
        out = channels if depthwise else draw(st.integers(1, 6))
        kernel = draw(st.sampled_from([1, 3]))
        more: dict[str, Any] = {"pads": [kernel // 2] * 4, "group": channels if depthwise else 1}
        maker.conv(channels, out, kernel, spread=spread, bias=draw(st.booleans()), **more)
        channels = out
        between = draw(st.sampled_from(["Relu", "LeakyRelu", "none", "MaxPool", "AveragePool", "Add"]))
        if between in ("Relu", "LeakyRelu"):
            maker.node(between)
        elif between.endswith("Pool"):
            maker.node(between, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif between == "Add":
            vector = maker.draw.normal(size=(channels, 1, 1)).astype(np.float32)
            maker.node("Add", maker.last, maker.constant(vector))
    if draw(st.booleans()):
        maker.node("Transpose", perm=[0, 2, 3, 1])
        size = channels * 64
        maker.node("Reshape", maker.last, maker.constant(np.array([-1, size], np.int64)))
    else:
        maker.node(draw(st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"])))
        maker.node("Flatten")
        size = channels
    maker.product(size, 4, spread=spread)
    maker.node("Relu")
    maker.product(4, 3)
    return maker.model()


@settings(deadline=None, max_examples=60)
@given(chains())
def test_the_float_answers_stay_and_the_ranges_become_equal(model: onnx.ModelProto) -> None:
    before = copied(model)
    report = equalize(model)
    # float32 sums of large terms that cancel differ in the last bits whatever the order.
    assert difference(before, model, sample()) < 1e-4
    for numbers in report.layers.values():
        assert numbers["largest_factor"] > 1
    for pair in find_pairs(model)[0]:
        made = pair.first.output_ranges(Maker.numpy(model, pair.first.node.input[1]))
        read = np.zeros_like(made)
        ranges = pair.second.input_ranges(Maker.numpy(model, pair.second.node.input[1]))
        np.maximum.at(read, pair.labels, ranges)
        alive = (made > 1e-5 * made.max()) & (read > 1e-5 * read.max())
        np.testing.assert_allclose(made[alive], read[alive], rtol=5e-3)
    again = equalize(model)
    assert not again.changed or max(numbers["largest_factor"] for numbers in again.layers.values()) < 1.01


def test_a_badly_scaled_network_gets_the_ranges_of_a_good_one() -> None:
    model = separable(spread=30)
    before = copied(model)
    report = equalize(model)
    assert difference(before, model, sample()) < 1e-5
    assert len(report.layers) == 4
    assert not report.left
    worst = max(numbers["spread_before"] for numbers in report.layers.values())
    assert worst > 50
    assert all(n["spread_after"] < 0.2 * worst for n in report.layers.values())


def test_an_equal_network_is_not_touched() -> None:
    model = separable(spread=30)
    equalize(model)
    before = model.SerializeToString()
    report = equalize(model)
    assert model.SerializeToString() == before
    assert not report.changed
    assert all("equal" in reason for reason in report.left.values())


def clipped(limit: float) -> onnx.ModelProto:
    maker = Maker(("n", 3, 8, 8), 3)
    maker.conv(3, 8, 3, pads=[1] * 4, spread=30)
    zero, most = maker.constant(np.float32(0)), maker.constant(np.float32(limit))
    maker.node("Clip", maker.last, zero, most)
    maker.conv(8, 4, 1)
    return maker.model()


def test_relu6_keeps_the_answers_where_it_clips_and_where_it_does_not() -> None:
    model = clipped(6.0)
    before = copied(model)
    untouched = equalize(model)
    assert not untouched.changed
    assert "ReLU6" in next(iter(untouched.left.values()))
    x = sample(count=20)
    known = highest(model, clip_inputs(model), Batch(x))
    assert known["t0"].max() > 6
    assert known["t0"].min() < 0.5
    report = equalize(model, known)
    assert difference(before, model, x) < 1e-5
    numbers = next(iter(report.layers.values()))
    assert numbers["spread_after"] < 0.5 * numbers["spread_before"]
    after = highest(model, clip_inputs(model), Batch(x))["t0"]
    free = known["t0"] <= 0.8 * 6
    assert (after[free] <= 0.8 * 6 * 1.001).all()
    np.testing.assert_allclose(after[~free], known["t0"][~free], rtol=1e-5)


def branch(maker: Maker) -> None:
    maker.conv(3, 4)
    first = maker.last
    maker.conv(4, 4)
    maker.node("Add", first, maker.last)


def shared(maker: Maker) -> None:
    weight = maker.constant(maker.weights(3, 3, 1, 1))
    maker.node("Conv", maker.last, weight)
    maker.node("Relu")
    maker.node("Conv", maker.last, weight)


def shared_bias(maker: Maker) -> None:
    offset = maker.constant(np.ones(3, np.float32))
    for _ in range(2):
        maker.node("Conv", maker.last, maker.constant(maker.weights(3, 3, 1, 1)), offset)


def sigmoid(maker: Maker) -> None:
    maker.conv(3, 4)
    maker.node("Sigmoid")
    maker.conv(4, 2)


def flexible(maker: Maker) -> None:
    maker.conv(3, 4)
    shape = maker.constant(np.array([0, -1], np.int64))
    maker.node("Reshape", maker.last, shape)
    maker.product(256, 2)


def twice(maker: Maker) -> None:
    maker.conv(3, 4)
    maker.node("Mul", maker.last, maker.last)
    maker.conv(4, 2)


def computed(maker: Maker) -> None:
    maker.conv(3, 3)
    kernel = maker.node("ReduceMean", "x", axes=[0], keepdims=1)
    del kernel
    maker.node("Conv", "t0", maker.last)


def squashed(maker: Maker) -> None:
    maker.conv(3, 4)
    maker.node("Clip", maker.last, maker.constant(np.float32(-1)), maker.constant(np.float32(1)))
    maker.conv(4, 2)


@pytest.mark.parametrize(
    ("build", "names", "reason"),
    [
        (branch, {"Conv0"}, "is read by"),
        (shared, {"Conv0", "Conv2"}, "shared"),
        (shared_bias, {"Conv0"}, "bias are shared"),
        (sigmoid, {"Conv0"}, "Sigmoid"),
        (twice, {"Conv0"}, "twice"),
        (computed, {"Conv0"}, "not constant"),
        (squashed, {"Conv0"}, "other limits"),
    ],
)
def test_odd_graphs_are_left_alone_and_named(build: Callable[[Maker], None], names: set[str], reason: str) -> None:
    maker = Maker(("n", 3, 8, 8))
    build(maker)
    model = maker.model()
    before = model.SerializeToString()
    report = equalize(model)
    assert not report.changed
    assert model.SerializeToString() == before
    assert names <= set(report.left)
    assert any(reason in text for text in report.left.values())


def test_a_reshape_of_free_dimensions_is_left_alone() -> None:
    maker = Maker(("n", 3, "height", "width"))
    flexible(maker)
    report = equalize(maker.model())
    assert not report.changed
    assert "not fixed" in report.left["Conv0"]


def test_an_output_in_between_is_not_changed() -> None:
    maker = Maker(("n", 3, 8, 8))
    middle = maker.conv(3, 4, spread=30)
    maker.node("Relu")
    maker.conv(4, 2)
    report = equalize(maker.model(maker.last, middle))
    assert not report.changed
    assert "output of the graph" in report.left["Conv0"]


def test_a_dead_channel_does_not_blow_up_its_bias() -> None:
    maker = Maker(("n", 3, 8, 8))
    weight = maker.weights(4, 3, 1, 1)
    weight[2] *= 1e-9
    offset = np.full(4, 0.5, np.float32)
    maker.node("Conv", "x", maker.constant(weight), maker.constant(offset, "offset"))
    maker.node("Relu")
    maker.conv(4, 2)
    model = maker.model()
    before = copied(model)
    equalize(model)
    assert difference(before, model, sample()) < 1e-5
    assert np.abs(Maker.numpy(model, "offset")).max() < 5
