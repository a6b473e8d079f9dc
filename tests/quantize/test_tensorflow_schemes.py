"""LiteRT conversion and quantization-aware training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgemill.data.dataset import SplitName
from edgemill.errors import CheckpointError, ToolchainError
from edgemill.quantize import LitertScheme, LitertSettings, QatSettings
from edgemill.recipe import Granularity, Qat, Task
from edgemill.runtimes import open_model
from tests.quantize.models import as_input, context


def accuracy(path: Path, kind: str, data: Any) -> float:
    answers = open_model(path, kind, 1).predict(data.features(SplitName.VALIDATION))
    return float((answers.argmax(axis=1) == data.labels(SplitName.VALIDATION)).mean())


def run_qat(workshop: Any, name: str, folder: Path, keras_path: Path | None = None, **changes: Any) -> Any:
    from edgemill.quantize.qat import run

    rule = {"epochs": 2, "batch_size": 64, "learning_rate": 5e-4} | changes
    inputs = {
        "keras": as_input(keras_path or workshop.keras(name), "keras"),
        "teacher": as_input(workshop.onnx(name), "onnx"),
        "data": as_input(workshop.data_path, "dataset"),
    }
    return run(QatSettings(training=Qat(**rule)), inputs, context(folder))


def recurrent() -> Any:
    from edgemill.tf import keras

    entry = keras.Input((8, 8, 1))
    x = keras.layers.LSTM(6, name="memory")(keras.layers.Reshape((8, 8))(entry))
    return keras.Model(entry, keras.layers.Dense(10)(x))


class TestLitert:
    def convert(self, workshop: Any, folder: Path, scheme: LitertScheme, **settings: Any) -> Any:
        from edgemill.quantize.litert import run

        inputs = {
            "keras": as_input(workshop.keras("residual"), "keras"),
            "data": as_input(workshop.data_path, "dataset"),
        }
        return run(LitertSettings(scheme=scheme, **settings), inputs, context(folder))

    @pytest.mark.parametrize(
        ("scheme", "constant"),
        [
            (LitertScheme.FP32, "float32"),
            (LitertScheme.FP16, "float16"),
            (LitertScheme.INT8_STATIC, "int8"),
        ],
    )
    def test_number_formats(self, workshop: Any, tmp_path: Path, scheme: LitertScheme, constant: str) -> None:
        made = self.convert(workshop, tmp_path, scheme)
        file = made.files["tflite"]
        held = {kind: count for kind, count in made.facts["constant_bytes"].items() if kind != "int32"}
        assert max(held, key=lambda kind: held[kind]) == constant
        assert accuracy(file.path, "tflite", workshop.data) >= (
            accuracy(workshop.onnx("residual"), "onnx", workshop.data) - 0.04
        )
        entry = file.signature.inputs[0]
        if scheme is LitertScheme.INT8_STATIC:
            assert entry.dtype == "int8"
            assert entry.scale
            assert entry.zero_point is not None
            assert file.signature.outputs[0].dtype == "int8"
            assert set(made.facts["activation_tensors"]) == {"int8"}
        else:
            assert entry.dtype == "float32"

    def test_dynamic_stores_int8_weights(self, workshop: Any, tmp_path: Path) -> None:
        # Weights of less than 1024 elements stay float by the converter's own rule.
        made = self.convert(workshop, tmp_path, LitertScheme.INT8_DYNAMIC)
        assert made.facts["constant_bytes"]["int8"] >= 1024
        assert made.files["tflite"].signature.inputs[0].dtype == "float32"

    def test_per_tensor_is_smaller_than_per_channel(self, workshop: Any, tmp_path: Path) -> None:
        sizes = {
            granularity: self.convert(
                workshop, tmp_path / granularity, LitertScheme.INT8_STATIC, granularity=granularity
            )
            .files["tflite"]
            .path.stat()
            .st_size
            for granularity in Granularity
        }
        assert sizes[Granularity.PER_TENSOR] < sizes[Granularity.PER_CHANNEL]

    def test_saved_model(self, workshop: Any, tmp_path: Path) -> None:
        from edgemill.quantize.litert import run
        from edgemill.tf import keras

        keras.models.load_model(workshop.keras("residual"), compile=False).export(str(tmp_path / "saved"))
        inputs = {"saved_model": as_input(tmp_path / "saved", "saved_model")}
        made = run(LitertSettings(scheme=LitertScheme.FP32), inputs, context(tmp_path))
        x = workshop.data.features(SplitName.VALIDATION, 0, 20)
        np.testing.assert_allclose(
            open_model(made.files["tflite"].path, "tflite", 1).predict(x),
            open_model(workshop.onnx("residual"), "onnx", 1).predict(x),
            rtol=1e-3,
            atol=1e-3,
        )

    def test_recurrent_layers_convert_for_batches_of_one(self, workshop: Any, tmp_path: Path) -> None:
        from edgemill.quantize.litert import run

        model = recurrent()
        model.save(tmp_path / "model.keras")
        inputs = {"keras": as_input(tmp_path / "model.keras", "keras")}
        file = run(LitertSettings(scheme=LitertScheme.FP32), inputs, context(tmp_path)).files["tflite"]
        assert file.signature.inputs[0].shape == (1, 8, 8, 1)
        x = workshop.data.features(SplitName.VALIDATION, 0, 20)
        np.testing.assert_allclose(open_model(file.path, "tflite", 1).predict(x), model(x).numpy(), atol=1e-4)

    def test_a_broken_file_is_the_checkpoints_fault(self, tmp_path: Path) -> None:
        from edgemill.quantize.litert import run

        (tmp_path / "model.keras").write_bytes(b"not a zip")
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            run(
                LitertSettings(scheme=LitertScheme.FP32),
                {"keras": as_input(tmp_path / "model.keras", "keras")},
                context(tmp_path),
            )


class TestQat:
    @pytest.fixture(scope="class")
    def trained(self, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
        return run_qat(workshop, "residual", tmp_path_factory.mktemp("qat"))

    def test_exports_answer_like_the_trained_model(self, trained: Any) -> None:
        for name in ("onnx_uint8", "onnx_int8", "tflite"):
            assert trained.facts["agreement"][name]["argmax_agreement"] >= 0.99
            assert trained.facts["agreement"][name]["relative_error"] < 0.01

    def test_accuracy_is_kept(self, workshop: Any, trained: Any) -> None:
        before = accuracy(workshop.onnx("residual"), "onnx", workshop.data)
        for name, file in trained.files.items():
            found = accuracy(file.path, file.kind, workshop.data)
            assert found >= before - 0.01
            assert found == trained.facts["score"][name]

    def test_onnx_runs_on_integer_kernels_only(self, trained: Any) -> None:
        for name in ("onnx_uint8", "onnx_int8"):
            kernels = trained.facts["kernels"][name]
            assert kernels["unfused"] == []
            assert kernels["float_nodes"] == {}
            assert kernels["operators"]["QLinearConv"] == 4
            assert kernels["operators"]["QLinearAdd"] == 1
            assert kernels["operators"]["QGemm"] == 2
        assert trained.facts["warnings"] == []
        assert trained.facts["left_out"] == {}

    def test_weights_are_int8_in_the_files(self, workshop: Any, trained: Any) -> None:
        for name in ("onnx_uint8", "onnx_int8"):
            model = onnx.load(str(trained.files[name].path))
            held = {t.name: t for t in model.graph.initializer}
            assert not [n for n, t in held.items() if t.data_type == TensorProto.FLOAT and np.prod(t.dims) > 24]
            assert sum(np.prod(t.dims) for t in held.values() if t.data_type == TensorProto.INT8) > 3700
        facts = trained.files["tflite"].facts
        assert set(facts["constant_bytes"]) == {"int8", "int32"}
        assert set(facts["activation_tensors"]) == {"int8"}

    def test_ranges_are_learnt_and_begin_at_zero_after_relu(self, trained: Any) -> None:
        ranges, start = trained.facts["ranges"], trained.facts["calibrated_ranges"]
        assert [-6.0, 6.0] not in start.values()
        assert any(ranges[name] != start[name] for name in ranges)
        for name in ("stem", "depth", "sum_relu", "plain", "hidden"):
            assert start[name][0] == ranges[name][0] == 0.0
            assert ranges[name][1] > 0
        assert ranges["depth"][1] <= 6.0

    def test_facts_are_json(self, trained: Any) -> None:
        json.dumps({**trained.facts}, allow_nan=False)
        for file in trained.files.values():
            json.dumps(dict(file.facts), allow_nan=False)

    def test_names_of_input_and_output_stay(self, workshop: Any, trained: Any) -> None:
        source = open_model(workshop.onnx("residual"), "onnx", 1).signature
        made = trained.files["onnx_uint8"].signature
        assert [s.name for s in made.inputs] == [s.name for s in source.inputs]
        assert [s.name for s in made.outputs] == [s.name for s in source.outputs]

    def test_many_kinds_of_layers(self, workshop: Any, tmp_path: Path) -> None:
        made = run_qat(workshop, "mixed", tmp_path)
        assert made.facts["left_out"] == {}
        for name in ("onnx_uint8", "onnx_int8"):
            kernels = made.facts["kernels"][name]
            # onnxruntime has no 8-bit transposed convolution; softmax and swish compute in float.
            assert set(kernels["float_nodes"]) <= {"ConvTranspose", "Softmax", "Sigmoid", "Mul"}
            assert kernels["unfused"] == []
            assert kernels["operators"]["QLinearConv"] == 3
            assert kernels["operators"]["QGemm"] == 2
        assert set(made.files["tflite"].facts["constant_bytes"]) == {"int8", "int32"}
        assert made.facts["score"]["onnx_uint8"] >= accuracy(workshop.onnx("mixed"), "onnx", workshop.data) - 0.03

    def test_what_cannot_be_annotated_is_left_out_by_name(self, workshop: Any, tmp_path: Path) -> None:
        made = run_qat(workshop, "awkward", tmp_path, epochs=1)
        assert set(made.facts["left_out"]) == {"first_norm", "shared"}
        assert all(any(name in text for text in made.facts["warnings"]) for name in ("first_norm", "shared"))
        # Conv1D became a convolution that has an integer kernel.
        assert made.facts["kernels"]["onnx_uint8"]["operators"]["QLinearConv"] == 2

    def test_pruned_weights_stay_zero(self, workshop: Any, tmp_path: Path) -> None:
        from edgemill.tf import keras

        model = keras.models.load_model(workshop.keras("residual"), compile=False)
        layer = model.get_layer("hidden")
        kernel, bias = layer.get_weights()
        dead = np.abs(kernel) < np.quantile(np.abs(kernel), 0.6)
        kernel[dead] = 0
        layer.set_weights([kernel, bias])
        model.save(tmp_path / "pruned.keras")
        made = run_qat(workshop, "residual", tmp_path, tmp_path / "pruned.keras", epochs=1)
        assert set(made.facts["sparsity"]) == {"hidden"}
        assert made.facts["sparsity"]["hidden"] == pytest.approx(0.6, abs=0.01)
        model = onnx.load(str(made.files["onnx_int8"].path))
        stored = [
            onnx.numpy_helper.to_array(t)
            for t in model.graph.initializer
            if t.data_type == TensorProto.INT8 and tuple(t.dims) == kernel.shape
        ]
        assert len(stored) == 1
        assert (stored[0][dead] == 0).all()

    def test_a_subclassed_model_is_refused(self, workshop: Any) -> None:
        from edgemill.quantize.placement import build
        from edgemill.tf import keras

        class Own(keras.Model):
            def call(self, inputs: Any) -> Any:
                return inputs

        model = Own()
        model(np.zeros((1, 4), np.float32))
        with pytest.raises(CheckpointError, match="functional and sequential"):
            build(model)

    def test_recurrent_layers_are_refused_before_the_training(self) -> None:
        from edgemill.quantize.placement import build

        with pytest.raises(CheckpointError, match="Recurrent") as caught:
            build(recurrent())
        assert caught.value.where == "memory"

    def test_a_model_without_weights_is_refused(self) -> None:
        from edgemill.quantize.placement import build
        from edgemill.tf import keras

        entry = keras.Input((4,))
        with pytest.raises(CheckpointError, match="No layer"):
            build(keras.Model(entry, keras.layers.ReLU()(entry)))

    def test_an_export_that_answers_differently_is_refused(self) -> None:
        from edgemill.quantize.agreement import check, compare

        rng = np.random.default_rng(0)
        answers = rng.normal(size=(200, 10)).astype(np.float32)
        assert check(compare(answers, answers, Task.CLASSIFICATION), "same")["argmax_agreement"] == 1.0
        with pytest.raises(ToolchainError, match="does not answer"):
            check(compare(answers[::-1], answers, Task.CLASSIFICATION), "reversed")
        with pytest.raises(ToolchainError, match="does not answer"):
            check(compare(answers[::-1], answers, Task.REGRESSION), "reversed")


def test_normal_form_answers_like_the_model(workshop: Any) -> None:
    from edgemill.quantize.normal_form import normal_form
    from edgemill.tf import keras

    x = workshop.data.features(SplitName.VALIDATION, 0, 50)
    for name in ("residual", "mixed", "awkward"):
        model = keras.models.load_model(workshop.keras(name), compile=False)
        plain = normal_form(model)
        np.testing.assert_allclose(plain(x).numpy(), model(x).numpy(), rtol=1e-3, atol=1e-4)
        assert plain.input_names == model.input_names
        kinds = {type(layer).__name__ for layer in plain.layers}
        assert not kinds & {"SeparableConv2D", "Conv1D"}
    assert "BatchNormalization" in kinds  # awkward's first layer has nothing before it to go into
