"""Static, dynamic and float16 quantization of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemill.data.dataset import SplitName
from edgemill.errors import DataError, QualityGateError, RecipeError
from edgemill.quantize import DynamicSettings, Fp16Settings, StaticSettings, dynamic, fp16, static
from edgemill.recipe import Calibration, Granularity
from edgemill.runtimes.onnxruntime import RUNTIME
from edgemill.targets.spec import ActivationType, Int8Arithmetic
from tests.quantize.models import as_input, context, digits

U8 = Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=False)
S8 = Int8Arithmetic(activations=ActivationType.INT8, reduce_range=False)


def accuracy(path: Path, data: Any) -> float:
    answers = RUNTIME.load(path).predict(data.features(SplitName.VALIDATION))
    return float((answers.argmax(axis=1) == data.labels(SplitName.VALIDATION)).mean())


def constants(path: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}


def int8_weights(path: Path) -> list[np.ndarray]:
    return [
        numpy_helper.to_array(t)
        for t in constants(path).values()
        if t.data_type == TensorProto.INT8 and len(t.dims) > 1
    ]


class TestStatic:
    def run(self, workshop: Any, folder: Path, **settings: Any) -> Any:
        rule = StaticSettings(**({"int8": U8} | settings))
        inputs = {"onnx": as_input(workshop.onnx("residual"), "onnx"), "data": as_input(workshop.data_path, "dataset")}
        return static.run(rule, inputs, context(folder))

    @pytest.mark.parametrize("calibration", list(Calibration))
    @pytest.mark.parametrize("int8", [U8, S8], ids=["uint8", "int8"])
    def test_every_operator_runs_on_integers(
        self, workshop: Any, tmp_path: Path, calibration: Calibration, int8: Int8Arithmetic
    ) -> None:
        made = self.run(workshop, tmp_path, calibration=calibration, int8=int8, percentile=99.9)
        kernels = made.facts["kernels"]
        assert kernels["unfused"] == []
        assert made.facts["float_nodes"] == {}
        assert made.facts["warnings"] == []
        assert kernels["operators"]["QLinearConv"] == 4
        assert made.facts["quantized_nodes"]["Conv"] == 4
        path = made.files["onnx"].path
        assert accuracy(path, workshop.data) >= accuracy(workshop.onnx("residual"), workshop.data) - 0.04
        assert path.parent == tmp_path / "out"
        assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]

    def test_methods_find_different_ranges(self, workshop: Any, tmp_path: Path) -> None:
        widths = {
            method: self.run(workshop, tmp_path / method, calibration=method, percentile=99.0).facts["ranges"][
                "median_width"
            ]
            for method in Calibration
        }
        assert widths[Calibration.PERCENTILE] < widths[Calibration.MINMAX]
        assert widths[Calibration.ENTROPY] <= widths[Calibration.MINMAX]

    def test_a_small_memory_changes_the_way_and_not_the_result(self, workshop: Any, tmp_path: Path) -> None:
        wide, narrow = (
            self.run(workshop, tmp_path / name, calibration_memory_bytes=memory).facts
            for name, memory in (("wide", 1 << 30), ("narrow", 1 << 10))
        )
        assert wide["calibration"]["passes"] == 1
        assert wide["calibration"]["estimate_bytes"] <= wide["calibration"]["budget_bytes"]
        assert narrow["calibration"]["passes"] == narrow["calibration"]["tensors"] > 1
        assert narrow["ranges"]["median_width"] == pytest.approx(wide["ranges"]["median_width"], rel=1e-4)
        assert "memory" in narrow["warnings"][0]

    def test_per_channel_has_a_scale_for_each_channel(self, workshop: Any, tmp_path: Path) -> None:
        sizes = {}
        for granularity in Granularity:
            path = self.run(workshop, tmp_path / granularity, granularity=granularity).files["onnx"].path
            sizes[granularity] = max(
                numpy_helper.to_array(t).size for name, t in constants(path).items() if name.endswith("_scale")
            )
        assert sizes[Granularity.PER_CHANNEL] > 1
        assert sizes[Granularity.PER_TENSOR] == 1

    def test_reduce_range_takes_seven_bits(self, workshop: Any, tmp_path: Path) -> None:
        narrow = Int8Arithmetic(activations=ActivationType.UINT8, reduce_range=True)
        full = int8_weights(self.run(workshop, tmp_path / "full").files["onnx"].path)
        reduced = int8_weights(self.run(workshop, tmp_path / "reduced", int8=narrow).files["onnx"].path)
        assert max(np.abs(w.astype(int)).max() for w in full) == 127
        assert max(np.abs(w.astype(int)).max() for w in reduced) == 64

    def test_activation_type_follows_the_target(self, workshop: Any, tmp_path: Path) -> None:
        for int8, kind in ((U8, TensorProto.UINT8), (S8, TensorProto.INT8)):
            path = self.run(workshop, tmp_path / int8.activations, int8=int8).files["onnx"].path
            held = constants(path)
            nodes = [n for n in onnx.load(str(path)).graph.node if n.op_type == "QuantizeLinear"]
            assert {held[n.input[2]].data_type for n in nodes} == {kind}

    def test_the_same_inputs_give_the_same_bytes(self, workshop: Any, tmp_path: Path) -> None:
        first = self.run(workshop, tmp_path / "a").files["onnx"].path.read_bytes()
        assert first == self.run(workshop, tmp_path / "b").files["onnx"].path.read_bytes()

    def test_infinite_calibration_samples_are_named(self, workshop: Any, tmp_path: Path) -> None:
        data = digits(tmp_path / "data")
        x = data.raw(SplitName.CALIBRATION).astype(np.float32)
        x[3] = np.inf
        np.save(tmp_path / "data" / "x_calibration.npy", x)
        inputs = {"onnx": as_input(workshop.onnx("residual"), "onnx"), "data": as_input(tmp_path / "data", "dataset")}
        with pytest.raises(DataError, match="not finite"):
            static.run(StaticSettings(int8=U8), inputs, context(tmp_path))


def dense(width: int = 48, scale: float = 1.0) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(64, width)).astype(np.float32) * scale
    second = rng.normal(size=(width, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], name="flat"),
        helper.make_node("MatMul", ["flat", "w1"], ["hidden"], name="hidden"),
        helper.make_node("Relu", ["hidden"], ["relu"], name="relu"),
        helper.make_node("MatMul", ["relu", "w2"], ["y"], name="answer"),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class TestDynamic:
    def test_convolutions_are_refused_by_name(self, workshop: Any, tmp_path: Path) -> None:
        inputs = {"onnx": as_input(workshop.onnx("residual"), "onnx")}
        with pytest.raises(RecipeError) as caught:
            dynamic.run(DynamicSettings(int8=U8), inputs, context(tmp_path))
        assert "slower" in caught.value.what
        names = [n.name for n in onnx.load(str(workshop.onnx("residual"))).graph.node if n.op_type == "Conv"]
        assert len(names) == 4
        assert all(name in str(caught.value.got) for name in names)
        assert caught.value.exit_code == 2

    def test_dense_layers_multiply_integers(self, tmp_path: Path) -> None:
        source = tmp_path / "dense.onnx"
        onnx.save(dense(), str(source))
        made = dynamic.run(DynamicSettings(int8=U8), {"onnx": as_input(source, "onnx")}, context(tmp_path))
        path = made.files["onnx"].path
        assert made.facts["quantized_nodes"]["MatMulInteger"] == 2
        assert len(int8_weights(path)) == 2
        assert path.stat().st_size < 0.5 * source.stat().st_size
        x = np.random.default_rng(1).normal(size=(20, 8, 8, 1)).astype(np.float32)
        expected, found = RUNTIME.load(source).predict(x), RUNTIME.load(path).predict(x)
        assert np.abs(found - expected).mean() < 0.05 * expected.std()

    def test_nothing_to_quantize_is_said(self, tmp_path: Path) -> None:
        model = dense()
        del model.graph.node[1:]
        model.graph.output[0].name = "flat"
        onnx.save(model, str(tmp_path / "flat.onnx"))
        with pytest.raises(RecipeError, match="nothing to quantize"):
            dynamic.run(
                DynamicSettings(int8=U8), {"onnx": as_input(tmp_path / "flat.onnx", "onnx")}, context(tmp_path / "x")
            )


class TestFp16:
    def test_weights_are_half_and_io_is_float(self, workshop: Any, tmp_path: Path) -> None:
        source = workshop.onnx("residual")
        inputs = {"onnx": as_input(source, "onnx"), "data": as_input(workshop.data_path, "dataset")}
        made = fp16.run(Fp16Settings(), inputs, context(tmp_path))
        converted = onnx.load(str(made.files["onnx"].path))
        onnx.shape_inference.infer_shapes(converted, strict_mode=True)  # refuses nodes that come before what they read
        path = made.files["onnx"].path
        signature = made.files["onnx"].signature
        assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {"float32"}
        kinds = [t.data_type for t in constants(path).values() if np.prod(t.dims) > 20]
        assert kinds
        assert set(kinds) == {TensorProto.FLOAT16}
        assert accuracy(path, workshop.data) == pytest.approx(accuracy(source, workshop.data), abs=0.01)
        assert 0 < made.facts["largest_activation"] < 65504

    def test_a_weight_beyond_half_is_named(self, tmp_path: Path) -> None:
        source = tmp_path / "dense.onnx"
        onnx.save(dense(scale=1e6), str(source))
        with pytest.raises(QualityGateError) as caught:
            fp16.run(Fp16Settings(), {"onnx": as_input(source, "onnx")}, context(tmp_path))
        assert "w1" in str(caught.value.got)
        assert "weights" in caught.value.what

    def test_an_activation_beyond_half_is_named(self, workshop: Any, tmp_path: Path) -> None:
        source = tmp_path / "dense.onnx"
        onnx.save(dense(scale=1e4), str(source))
        inputs = {"onnx": as_input(source, "onnx"), "data": as_input(workshop.data_path, "dataset")}
        with pytest.raises(QualityGateError) as caught:
            fp16.run(Fp16Settings(), inputs, context(tmp_path))
        assert "activations" in caught.value.what
        assert "hidden" in str(caught.value.got)
