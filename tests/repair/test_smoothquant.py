"""SmoothQuant: the float answers stay, outliers move to the weights, other graphs are left alone and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.quantize.repair.probe import Probe, highest
from edgemill.quantize.repair.smoothquant import smooth, smoothed_inputs
from tests.repair.graphs import Maker, copied, difference
from tests.repair.test_equalization import Batch

WIDTH = 6


def norm(maker: Maker, decomposed: bool, spread: float) -> str:
    """Layer normalization over the last dimension, as one operator or as tf2onnx writes it."""
    gain = maker.constant(maker.weights(1, WIDTH, spread=spread, axis=1)[0] + np.float32(0.01))
    shift = maker.constant(maker.draw.normal(size=WIDTH).astype(np.float32))
    if not decomposed:
        return maker.node("LayerNormalization", maker.last, gain, shift, axis=-1)
    source = maker.last
    mean = maker.node("ReduceMean", source, axes=[-1], keepdims=1)
    far = maker.node("Sub", source, mean)
    square = maker.node("Mul", far, far)
    variance = maker.node("ReduceMean", square, axes=[-1], keepdims=1)
    root = maker.node("Sqrt", maker.node("Add", variance, maker.constant(np.float32(1e-3))))
    inverse = maker.node("Reciprocal", root)
    factor = maker.node("Mul", inverse, gain)
    scaled = maker.node("Mul", source, factor)
    offset = maker.node("Sub", shift, maker.node("Mul", mean, factor))
    return maker.node("Add", scaled, offset)


@st.composite
def blocks(draw: st.DrawFn) -> onnx.ModelProto:
    maker = Maker(("n", 5, WIDTH), draw(st.integers(0, 999)))
    spread = draw(st.sampled_from([1.0, 10.0, 30.0]))
    entry = norm(maker, draw(st.booleans()), spread)
    made = []
    for _ in range(draw(st.integers(1, 3))):
        maker.last = entry
        made.append(maker.product(WIDTH, WIDTH))
    maker.last = made[0]
    for other in made[1:]:
        maker.node("Add", maker.last, other)
    if draw(st.booleans()):
        maker.node("Add", maker.last, maker.constant(np.ones(WIDTH, np.float32)))
    maker.node(draw(st.sampled_from(["Relu", "Identity", "LeakyRelu"])))
    if draw(st.booleans()):
        maker.node("Reshape", maker.last, maker.constant(np.array([-1, WIDTH], np.int64)))
    maker.product(WIDTH, 4, spread=spread)
    return maker.model()


def smoothed(model: onnx.ModelProto, x: np.ndarray, alpha: float = 0.5):
    return smooth(model, highest(model, smoothed_inputs(model), Batch(x)), alpha)


@settings(deadline=None, max_examples=60)
@given(blocks(), st.sampled_from([0.25, 0.5, 0.8]))
def test_the_float_answers_stay(model: onnx.ModelProto, alpha: float) -> None:
    before = copied(model)
    x = np.random.default_rng(5).normal(size=(7, 5, WIDTH)).astype(np.float32)
    report = smoothed(model, x, alpha)
    assert difference(before, model, x) < 1e-4
    assert any(numbers["channels"] == WIDTH for numbers in report.layers.values())


def test_channels_and_weights_meet_as_the_paper_says() -> None:
    maker = Maker(("n", 5, WIDTH))
    entry = norm(maker, False, 30)
    maker.node("MatMul", entry, maker.constant(maker.weights(WIDTH, 4), "w"))
    model = maker.model()
    x = maker.draw.normal(size=(40, 5, WIDTH)).astype(np.float32)
    most, weight = highest(model, {entry: -1}, Batch(x))[entry], np.abs(Maker.numpy(model, "w")).max(axis=1)
    report = smoothed(model, x)
    after, rows = highest(model, {entry: -1}, Batch(x))[entry], np.abs(Maker.numpy(model, "w")).max(axis=1)
    # s = sqrt(max|X| / max|W|): both sides get the same ranges, up to the factor common to all channels.
    np.testing.assert_allclose(after / rows, np.full(WIDTH, (after / rows)[0]), rtol=1e-4)
    np.testing.assert_allclose(after * rows, most * weight, rtol=1e-4)
    numbers = next(iter(report.layers.values()))
    assert numbers["spread_after"] < numbers["spread_before"]


def from_entry(maker: Maker) -> None:
    maker.product(WIDTH, 4)


def residual(maker: Maker) -> None:
    entry = norm(maker, False, 10)
    maker.product(WIDTH, WIDTH)
    maker.node("Add", maker.last, entry)


def activation(maker: Maker) -> None:
    norm(maker, False, 10)
    maker.node("Sigmoid")
    maker.product(WIDTH, 4)


def squared(maker: Maker) -> None:
    entry = norm(maker, False, 10)
    maker.node("Mul", entry, entry)
    maker.product(WIDTH, 4)


def both(maker: Maker) -> None:
    entry = norm(maker, False, 10)
    turned = maker.node("Transpose", entry, perm=[0, 2, 1])
    maker.node("MatMul", entry, turned)


def shared_gain(maker: Maker) -> None:
    gain = maker.constant(np.ones(WIDTH, np.float32))
    shift = maker.constant(np.ones(WIDTH, np.float32))
    maker.node("LayerNormalization", maker.last, gain, shift, axis=-1)
    maker.product(WIDTH, WIDTH)
    maker.node("LayerNormalization", maker.last, gain, shift, axis=-1)


def shared_weight(maker: Maker) -> None:
    norm(maker, False, 10)
    weight = maker.constant(maker.weights(WIDTH, WIDTH))
    maker.node("MatMul", maker.last, weight)
    maker.node("MatMul", maker.last, weight)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (from_entry, "input of the graph"),
        (residual, "too"),
        (activation, "Sigmoid"),
        (squared, "itself"),
        (both, "too"),
        (shared_gain, "too"),
        (shared_weight, "shared"),
    ],
)
def test_odd_graphs_are_left_alone_and_named(build: Callable[[Maker], None], reason: str) -> None:
    maker = Maker(("n", 5, WIDTH))
    build(maker)
    model = maker.model()
    before = model.SerializeToString()
    report = smoothed(model, maker.draw.normal(size=(4, 5, WIDTH)).astype(np.float32))
    assert model.SerializeToString() == before
    assert not report.changed
    assert any(reason in text for text in report.left.values())


def test_without_maxima_nothing_is_changed() -> None:
    maker = Maker(("n", 5, WIDTH))
    norm(maker, False, 10)
    maker.product(WIDTH, 4)
    model = maker.model()
    report = smooth(model, {})
    assert not report.changed
    assert "not known" in next(iter(report.left.values()))


def test_a_product_of_one_activation_with_another_is_divided_once() -> None:
    maker = Maker(("n", 5, WIDTH))
    left = norm(maker, False, 10)
    maker.last = "x"
    right = norm(maker, True, 10)
    gate = maker.node("Mul", left, right)
    maker.product(WIDTH, 4)
    model = maker.model()
    before = copied(model)
    x = maker.draw.normal(size=(4, 5, WIDTH)).astype(np.float32)
    plain = Probe(model, [gate])(x)[gate]
    report = smoothed(model, x)
    assert report.changed
    assert difference(before, model, x) < 1e-5
    assert np.abs(Probe(model, [gate])(x)[gate] - plain).max() > 1e-3
