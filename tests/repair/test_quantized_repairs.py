"""Repairs of QDQ graphs: scales, learnt rounding, biases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from edgemill.errors import InvariantError
from edgemill.quantize.onnx_graph import Editor
from edgemill.quantize.repair.adaround import adaround
from edgemill.quantize.repair.bias_correction import bias_correction
from edgemill.quantize.repair.locate import clamp, find_layers
from edgemill.quantize.repair.mse_scales import mse_scales
from edgemill.quantize.repair.patches import answers as by_channel
from edgemill.quantize.repair.probe import Probe, Samples, sqnr_db
from edgemill.quantize.repair.rounding import Problem, learn
from edgemill.recipe import Granularity
from edgemill.targets.spec import ActivationType, WeightType
from tests.repair.graphs import Maker, copied, dataset, quantized, separable
from tests.repair.graphs import settings as rule

FORMS: dict[str, dict[str, Any]] = {
    "per_channel": {},
    "per_tensor": {"granularity": Granularity.PER_TENSOR},
    "reduced": {"reduce_range": True},
    "uint8_weights": {"weights": WeightType.UINT8},
    "int8_activations": {"activations": ActivationType.INT8},
}


class Case:
    """A float graph, its QDQ form, and the samples."""

    def __init__(self, folder: Path, model: onnx.ModelProto, form: dict[str, Any], count: int = 48) -> None:
        shape = tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:])
        self.data = dataset(folder / "data", shape, count)
        self.reduced = form.get("reduce_range", False)
        self.float, self.model = quantized(model, self.data, folder, rule(**form))
        self.samples = Samples(self.data, 16)

    def layers(self) -> list[Any]:
        found, left = find_layers(self.model, self.float, self.reduced)
        assert not left
        return found

    def sqnr(self) -> float:
        value = sqnr_db(self.float, self.model, self.samples)
        assert value is not None
        return value


@pytest.fixture(params=list(FORMS))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(tmp_path, separable(spread=3, seed=4), FORMS[request.param])


class TestLayers:
    def test_every_layer_is_found_with_its_float_weights(self, case: Case) -> None:
        found = case.layers()
        assert [layer.linear.node.op_type for layer in found] == ["Conv"] * 4 + ["Gemm"]
        for layer in found:
            view = layer.linear
            held = view.matrix(layer.integers) * layer.scales.reshape(view.groups, -1, 1)
            far = np.abs(held - view.matrix(layer.weight)) / layer.scales.reshape(view.groups, -1, 1)
            assert far.max() < 0.51
            assert (layer.highest, layer.lowest) == ((64, -64) if case.reduced else (127, -127))

    def test_what_is_stored_is_what_is_read(self, case: Case) -> None:
        layer = case.layers()[2]
        moved = np.clip(layer.integers + 1, layer.lowest, layer.highest)
        layer.set_integers(moved)
        again = case.layers()[2]
        assert again.integers.tolist() == moved.tolist()
        kinds = {t.name: t.data_type for t in case.model.graph.initializer}
        assert TensorProto.FLOAT not in {kinds[n] for n in kinds if n.endswith(("_quantized", "_uint8"))}
        with pytest.raises(InvariantError):
            layer.set_integers(moved + 500)

    def test_smaller_scales_leave_the_bias_what_it_is(self, case: Case) -> None:
        layer = case.layers()[0]
        before, scales = layer.bias, layer.scales.copy()
        assert layer.set_scales(scales * np.float32(0.5))
        np.testing.assert_allclose(layer.scales, scales * 0.5, rtol=1e-6)
        np.testing.assert_allclose(layer.bias, before, atol=scales.max())

    def test_scales_that_int32_cannot_follow_are_refused(self, case: Case) -> None:
        layer = case.layers()[0]
        before = case.model.SerializeToString()
        assert not layer.set_scales(layer.scales * np.float32(1e-12))
        assert case.model.SerializeToString() == before

    def test_clamp_is_the_range_of_the_next_quantizer(self, case: Case) -> None:
        low, high = clamp(Editor(case.model), case.layers()[0].answer)
        assert low == 0
        assert 0 < high < 1000
        assert clamp(Editor(case.float), case.layers()[0].expected) == (-np.inf, np.inf)

    def test_shared_weights_are_left_alone_and_named(self, tmp_path: Path) -> None:
        maker = Maker(("n", 3, 6, 6))
        weight = maker.constant(maker.weights(3, 3, 3, 3))
        for _ in range(2):
            maker.node("Conv", maker.last, weight, pads=[1, 1, 1, 1])
        maker.conv(3, 4)
        case = Case(tmp_path, maker.model(), {})
        before = copied(case.model)
        found, left = find_layers(case.model, case.float, False)
        assert len(found) == 1
        assert len(left) == 2
        assert all("shared" in reason for reason in left.values())
        report = mse_scales(case.model, case.float, False)
        assert set(left) <= set(report.left)
        for old, new in zip(before.graph.initializer, case.model.graph.initializer, strict=True):
            if old.name.startswith(weight):
                assert old == new


class TestScales:
    def test_the_squared_error_of_every_layer_falls(self, tmp_path: Path) -> None:
        maker = Maker(("n", 3, 8, 8), 2)
        weight = maker.weights(8, 3, 3, 3)
        weight[:, 0, 0, 0] *= 9  # outliers that stretch the scale
        maker.node("Conv", "x", maker.constant(weight))
        for number, form in enumerate(FORMS.values()):
            case = Case(tmp_path / str(number), maker.model(), form)
            (layer,) = case.layers()
            before, scales = error(layer), layer.scales.copy()
            report = mse_scales(case.model, case.float, case.reduced)
            (layer,) = case.layers()
            assert error(layer) < before
            (numbers,) = report.layers.values()
            assert error(layer) == pytest.approx(numbers["error"] * before, rel=1e-3)
            assert (layer.scales <= scales).all()
            assert numbers["smallest_ratio"] == pytest.approx(float((layer.scales / scales).min()), rel=1e-5)

    def test_no_ratio_of_a_fine_grid_is_much_better(self, case: Case) -> None:
        scales = [layer.scales.astype(np.float64) for layer in case.layers()]
        mse_scales(case.model, case.float, case.reduced)
        for layer, full in zip(case.layers(), scales, strict=True):
            rows = layer.linear.matrix(layer.weight).astype(np.float64).reshape(layer.linear.outputs, -1)
            best = np.min([errors(rows, full * ratio, layer) for ratio in np.linspace(0.3, 1, 400)], axis=0)
            found = errors(rows, layer.scales.astype(np.float64), layer)
            if layer.per_channel:
                assert (found <= 1.06 * best + 1e-12).all()

    def test_a_second_time_there_is_nothing_to_do(self, case: Case) -> None:
        mse_scales(case.model, case.float, case.reduced)
        before = case.model.SerializeToString()
        report = mse_scales(case.model, case.float, case.reduced)
        if not report.changed:
            assert case.model.SerializeToString() == before
        assert all(numbers["error"] > 0.97 for numbers in report.layers.values())


def errors(rows: np.ndarray, scales: np.ndarray, layer: Any) -> np.ndarray:
    column = scales[:, None]
    return ((rows - np.clip(np.rint(rows / column), layer.lowest, layer.highest) * column) ** 2).sum(axis=1)


def error(layer: Any) -> float:
    held = layer.linear.matrix(layer.integers) * layer.scales.reshape(layer.linear.groups, -1, 1)
    return float(((layer.linear.matrix(layer.weight) - held) ** 2).sum())


def problem(draw: Any, groups: int, outputs: int, factors: int, limit: int = 7, relu: bool = True) -> Problem:
    seen = np.maximum(draw.normal(0.3, 1, size=(groups, 400, factors)), 0).astype(np.float32)
    weight = draw.normal(size=(groups, outputs, factors))
    scale = np.abs(weight).max(axis=2) / limit
    return Problem(
        factors=seen,
        targets=(seen @ weight.transpose(0, 2, 1)).astype(np.float32),
        weight=weight,
        scale=scale,
        bias=np.zeros((groups, outputs)),
        limits=(-limit, limit),
        clamp=(0.0, np.inf) if relu else (-np.inf, np.inf),
        held_out=np.arange(400) % 4 == 0,
    )


class TestRounding:
    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.booleans())
    def test_every_weight_is_the_floor_or_the_ceiling(
        self, seed: int, groups: int, outputs: int, factors: int, relu: bool
    ) -> None:
        given_problem = problem(np.random.default_rng(seed), groups, outputs, factors, relu=relu)
        found = learn(given_problem, 60, np.random.default_rng(seed)).integers
        exact = given_problem.weight / given_problem.scale[:, :, None]
        low, high = np.clip(np.floor(exact), -7, 7), np.clip(np.ceil(exact), -7, 7)
        assert ((found == low) | (found == high)).all()

    def test_the_learnt_rounding_is_better_than_to_nearest(self) -> None:
        given_problem = problem(np.random.default_rng(1), 2, 12, 40)
        nearest = np.clip(np.rint(given_problem.weight / given_problem.scale[:, :, None]), -7, 7).astype(np.int32)
        found = learn(given_problem, 500, np.random.default_rng(1)).integers
        for held_out in (True, False):
            ratio = given_problem.errors(found, held_out).sum() / given_problem.errors(nearest, held_out).sum()
            assert ratio < 0.8

    def test_what_is_on_the_grid_stays(self) -> None:
        draw = np.random.default_rng(3)
        given_problem = problem(draw, 1, 4, 10)
        given_problem.weight[:, :, ::2] = 0
        found = learn(given_problem, 100, draw).integers
        assert not found[:, :, ::2].any()

    def test_the_same_seed_gives_the_same_rounding(self) -> None:
        given_problem = problem(np.random.default_rng(1), 1, 6, 20)
        first, second = (learn(given_problem, 50, np.random.default_rng(5)).integers for _ in range(2))
        assert first.tolist() == second.tolist()


class TestAdaRound:
    def test_layers_answer_better_and_weights_stay_between_their_neighbours(self, case: Case) -> None:
        before, stored = case.sqnr(), [layer.integers for layer in case.layers()]
        report = adaround(case.model, case.float, case.samples, case.reduced, 1, iterations=150)
        assert report.layers
        assert all(numbers["error"] < 1 and numbers["weights"] > 0 for numbers in report.layers.values())
        assert case.sqnr() > before
        for layer, old in zip(case.layers(), stored, strict=True):
            exact = layer.linear.matrix(layer.weight) / layer.scales.reshape(layer.linear.groups, -1, 1)
            now = layer.linear.matrix(layer.integers)
            low = np.clip(np.floor(exact - 1e-4), layer.lowest, layer.highest)
            high = np.clip(np.ceil(exact + 1e-4), layer.lowest, layer.highest)
            assert ((low <= now) & (now <= high)).all()
            if layer.name in report.layers:
                assert np.count_nonzero(layer.integers != old) == report.layers[layer.name]["weights"]

    def test_the_same_seed_gives_the_same_bytes(self, tmp_path: Path) -> None:
        made = []
        for name in ("a", "b"):
            case = Case(tmp_path / name, separable(seed=4), {})
            adaround(case.model, case.float, case.samples, False, 3, iterations=40)
            made.append(case.model.SerializeToString(deterministic=True))
        assert made[0] == made[1]

    def test_products_of_sequences_are_learnt_too(self, tmp_path: Path) -> None:
        maker = Maker(("n", 5, 6), 2)
        maker.product(6, 16)
        maker.node("Relu")
        maker.product(16, 4)
        case = Case(tmp_path, maker.model(), {"granularity": Granularity.PER_TENSOR})
        assert adaround(case.model, case.float, case.samples, False, 1, iterations=200).layers


class TestBias:
    def means(self, case: Case) -> list[tuple[np.ndarray, Any]]:
        """Mean error of every channel of every layer, on all samples."""
        found = []
        for layer in case.layers():
            total = []
            for model, tensor in ((case.model, layer.answer), (case.float, layer.expected)):
                probe = Probe(model, [tensor])
                rows = [
                    by_channel(layer.linear, probe(x)[tensor]).reshape(-1, layer.linear.outputs) for x in case.samples
                ]
                total.append(np.concatenate(rows).mean(axis=0, dtype=np.float64))
            found.append((total[0] - total[1], layer))
        return found

    @pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
    def test_the_mean_errors_are_gone(self, tmp_path: Path, bias: bool) -> None:
        for number, form in enumerate(FORMS.values()):
            case = Case(tmp_path / str(number), separable(spread=3, seed=4, bias=bias), form)
            before = self.means(case)
            report = bias_correction(case.model, case.float, case.samples, case.reduced)
            assert report.layers
            after = self.means(case)
            for (old, _), (new, layer) in zip(before, after, strict=True):
                step = steps(case.model, layer)
                assert (np.abs(new) <= 0.51 * step + 1e-6).all()
                assert np.abs(old).max() > np.abs(new).max()

    def test_a_corrected_graph_still_runs_on_integers(self, tmp_path: Path) -> None:
        from edgemill.quantize.kernels import optimized_kernels

        case = Case(tmp_path, separable(bias=False), {})
        bias_correction(case.model, case.float, case.samples, False)
        onnx.save(case.model, str(tmp_path / "corrected.onnx"))
        kernels = optimized_kernels(tmp_path / "corrected.onnx")
        assert kernels.unfused == ()
        assert kernels.counts["QLinearConv"] == 4

    def test_a_product_without_bias_is_left_alone_and_named(self, tmp_path: Path) -> None:
        maker = Maker(("n", 5, 6), 2)
        maker.product(6, 8)
        case = Case(tmp_path, maker.model(), {})
        before = case.model.SerializeToString()
        report = bias_correction(case.model, case.float, case.samples, False)
        assert not report.changed
        assert "no bias" in next(iter(report.left.values()))
        assert case.model.SerializeToString() == before


def steps(model: onnx.ModelProto, layer: Any) -> np.ndarray:
    """Distance of neighbouring values of a layer's bias."""
    editor = Editor(model)
    pair = editor.producer(layer.linear.node.input[2])
    assert pair is not None
    scale = editor.value(pair.input[1])
    assert scale is not None
    return np.broadcast_to(scale.reshape(-1), (layer.linear.outputs,))


Repairing = Callable[[Case], Any]


@pytest.mark.parametrize(
    "repair",
    [
        lambda case: mse_scales(case.model, case.float, False),
        lambda case: adaround(case.model, case.float, case.samples, False, 1, iterations=5),
        lambda case: bias_correction(case.model, case.float, case.samples, False),
    ],
    ids=["mse_scales", "adaround", "bias_correction"],
)
def test_a_graph_without_layers_is_not_changed(repair: Repairing, tmp_path: Path) -> None:
    maker = Maker(("n", 3, 8, 8))
    maker.node("GlobalAveragePool")
    case = Case(tmp_path, maker.model(), {})
    before = case.model.SerializeToString()
    report = repair(case)
    assert not report.changed
    assert case.model.SerializeToString() == before
