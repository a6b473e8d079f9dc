"""The matrix form of layers against what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.quantize.repair.linear import linear
from edgemill.quantize.repair.patches import answers, positions, rows, windows
from edgemill.quantize.repair.probe import Probe
from tests.repair.graphs import Maker


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Any, np.ndarray]:
    rank = draw(st.integers(1, 3))
    groups, each, out = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    space = [(k - 1) * d + 1 + draw(st.integers(0, 3)) for k, d in zip(kernel, dilations, strict=True)]
    more: dict[str, Any] = {"strides": [draw(st.integers(1, 2)) for _ in range(rank)], "group": groups}
    mode = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "pads", "none"]))
    if mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        more["auto_pad"] = mode
    if mode == "pads":
        more["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    # onnxruntime refuses SAME with dilations.
    more["dilations"] = [1] * rank if mode.startswith("SAME") else dilations
    maker = Maker(("n", groups * each, *space), draw(st.integers(0, 99)))
    weight = maker.weights(groups * out, each, *kernel)
    maker.node("Conv", "x", maker.constant(weight, "w"), **more)
    return maker.model(), maker.draw.normal(size=(2, groups * each, *space)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(convolutions())
def test_a_convolution_is_a_product_of_what_the_kernel_sees(case: tuple[Any, np.ndarray]) -> None:
    model, x = case
    node = model.graph.node[0]
    weight = np.asarray(Maker.numpy(model, "w"))
    view = linear(node, weight.shape)
    assert not isinstance(view, str)
    expected = answers(view, Probe(model, [node.output[0]])(x)[node.output[0]])
    seen = windows(view, x)
    assert seen.shape[: 1 + len(weight.shape) - 2] == expected.shape[:-1]
    flat = rows(view, seen.reshape(-1, *seen.shape[len(expected.shape) - 1 :]))
    made = (flat @ view.matrix(weight).transpose(0, 2, 1)).transpose(1, 0, 2).reshape(expected.shape)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape", "attributes"),
    [
        ("MatMul", (4, 3), {}),
        ("Gemm", (4, 3), {}),
        ("Gemm", (3, 4), {"transB": 1}),
        ("Conv", (6, 2, 3, 2), {"group": 3}),
    ],
)
def test_scaling_channels_scales_what_goes_in_and_out(kind: str, shape: tuple[int, ...], attributes: Any) -> None:
    maker = Maker(("n", 6, 5, 5) if kind == "Conv" else ("n", 4))
    maker.node(kind, "x", maker.constant(maker.weights(*shape), "w"), **attributes)
    model = maker.model()
    view = linear(model.graph.node[0], shape)
    assert not isinstance(view, str)
    weight = Maker.numpy(model, "w").astype(np.float64)
    assert view.stored(view.matrix(weight)).tolist() == weight.tolist()
    made, read = maker.draw.uniform(0.5, 2, view.outputs), maker.draw.uniform(0.5, 2, view.inputs)
    x = maker.draw.normal(size=(2, 6, 5, 5) if kind == "Conv" else (2, 4)).astype(np.float32)
    column = (1, -1, 1, 1) if kind == "Conv" else (1, -1)
    plain = Probe(model, [maker.last])((x * read.reshape(column)).astype(np.float32))[maker.last] * made.reshape(column)
    scaled = view.scale_outputs(view.scale_inputs(weight, read), made)
    Maker.replace(model, "w", scaled.astype(np.float32))
    np.testing.assert_allclose(Probe(model, [maker.last])(x)[maker.last], plain, rtol=1e-4, atol=1e-5)
    assert view.output_ranges(scaled) == pytest.approx(np.abs(view.matrix(scaled)).max(axis=2).reshape(-1).tolist())
    largest = np.abs(view.scale_inputs(np.ones(shape), read))
    assert view.input_ranges(largest).tolist() == read.tolist()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(1, 40), st.integers(0, 5))
def test_positions_are_distinct_and_inside(shape: list[int], count: int, seed: int) -> None:
    at = positions(tuple(shape), count, np.random.default_rng(seed))
    chosen = set(zip(*(index.tolist() for index in at), strict=True))
    assert len(chosen) == min(count, int(np.prod(shape)))
    assert all(0 <= i < size for one in chosen for i, size in zip(one, shape, strict=True))
