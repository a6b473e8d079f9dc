"""4-bit and float16 weights of operators whose activations are float, and the formats that targets have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import helper

from edgemill.errors import RecipeError
from edgemill.quantize.mixed.narrow import BLOCK, four_bits, to_four_bits, to_half
from edgemill.quantize.mixed.wider import check_wider, lacks, wider_formats
from edgemill.recipe import Recipe, Wider, parse_recipe
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from tests.mixed.graphs import save

FINITE = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=70), elements=FINITE))
def test_four_bits_are_within_a_step_of_the_weights(weights: np.ndarray) -> None:
    made = four_bits(weights)
    assert made.stored.dtype == np.uint8
    assert made.stored.shape == (weights.shape[1], -(-weights.shape[0] // BLOCK), BLOCK // 2)
    assert np.isfinite(made.values).all()
    steps = np.repeat(np.abs(made.scales), BLOCK, axis=1)[:, : weights.shape[0]].T
    # Shrunk by 0.7 at most, the widest weight of a block loses up to 0.3 of its eight steps.
    assert (np.abs(made.values - weights) <= 0.45 * 8 * steps + 1e-6).all()
    rounding = np.abs(made.values - weights).mean()
    assert rounding <= np.abs(weights).max(initial=0) / 8 + 1e-6


@given(st.integers(-8, 7), st.sampled_from([0.5, 1.0, 3.0]))
def test_what_is_on_the_grid_stays(step: int, scale: float) -> None:
    weights = np.full((BLOCK, 2), step * scale, np.float32)
    weights[0] = -8 * scale
    assert np.allclose(four_bits(weights).values, weights)


@pytest.mark.parametrize(("depth", "kind"), [(64, "MatMul"), (75, "MatMul"), (64, "Gemm"), (75, "GemmT")])
def test_onnxruntime_reads_the_weights_as_they_are_meant(tmp_path: Path, depth: int, kind: str) -> None:
    draw = np.random.default_rng(3)
    weights, bias = draw.normal(size=(depth, 80)).astype(np.float32), draw.normal(size=80).astype(np.float32)
    turned = kind == "GemmT"
    constants = {"w": weights.T.copy() if turned else weights}
    if kind == "MatMul":
        node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
        bias = np.zeros(80, np.float32)
    else:
        node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="product", transB=int(turned))
        constants["b"] = bias
    path = save(tmp_path / "m.onnx", [node], constants, ["n", depth], ("y", ["n", 80]))
    model = onnx.load(path)
    assert to_four_bits(model, ["product"]) == ["product"]
    onnx.save(model, tmp_path / "four.onnx")
    x = draw.normal(size=(5, depth)).astype(np.float32)
    answer = open_model(tmp_path / "four.onnx", "onnx").predict(x)
    assert np.allclose(answer, x @ four_bits(weights).values + bias, atol=1e-3)
    assert np.abs(answer - (x @ weights + bias)).max() > 1e-2


def test_small_or_unknown_products_are_left_alone(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    path = save(tmp_path / "m.onnx", [node], {"w": np.ones((4, 4), np.float32)}, ["n", 4], ("y", ["n", 4]))
    model = onnx.load(path)
    assert to_four_bits(model, ["another"]) == []
    assert model == onnx.load(path)


def test_half_keeps_what_it_cannot_hold_and_what_others_read(tmp_path: Path) -> None:
    large, small = np.full((4, 4), 1e6, np.float32), np.full((4, 4), 0.25, np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "large"], ["a"], name="a"),
        helper.make_node("MatMul", ["a", "small"], ["b"], name="b"),
        helper.make_node("MatMul", ["b", "shared"], ["c"], name="c"),
        helper.make_node("MatMul", ["c", "shared"], ["y"], name="d"),
    ]
    constants = {"large": large, "small": small, "shared": small.copy()}
    path = save(tmp_path / "m.onnx", nodes, constants, ["n", 4], ("y", ["n", 4]))
    model = onnx.load(path)
    assert to_half(model, ["a", "b", "c"]) == ["small"]
    onnx.save(model, tmp_path / "half.onnx")
    x = np.ones((3, 4), np.float32)
    assert np.array_equal(open_model(tmp_path / "half.onnx", "onnx").predict(x), open_model(path, "onnx").predict(x))


def recipe(wider: list[str], targets: list[str]) -> Recipe:
    return parse_recipe(
        {
            "name": "test",
            "checkpoint": {"path": "model.keras"},
            "data": {"source": "npz", "path": "data.npz", "split": {"validation": 10}},
            "stages": {"quantize": {"schemes": ["int8_mixed", "int8_static"], "mixed": {"wider": wider}}},
            "targets": targets,
        }
    )


class TestWider:
    def test_int16_is_refused_with_the_reason(self) -> None:
        with pytest.raises(RecipeError, match="x86-64-vnni lacks") as caught:
            check_wider(recipe(["int16"], ["x86-64-vnni"]))
        assert "int16 kernels" in str(caught.value.got)
        assert "fp16" in str(caught.value.expected)

    def test_what_the_runtime_has_is_accepted(self) -> None:
        check_wider(recipe(["fp16", "fp32"], ["x86-64-vnni", "raspberry-pi-5"]))
        check_wider(recipe([], ["x86-64-vnni", "android-arm64"]))

    def test_fp32_is_always_the_last_resort(self) -> None:
        target = load_target("raspberry-pi-5")
        assert wider_formats(target, ()) == (Wider.FP32,)
        assert wider_formats(target, (Wider.FP16,)) == (Wider.FP16, Wider.FP32)

    def test_litert_has_none(self) -> None:
        assert "int8_mixed" in str(lacks(load_target("android-arm64"), ()))
