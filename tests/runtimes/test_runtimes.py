import json
import subprocess
import sys
from abc import ABC, abstractmethod

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgemill.artifact import TensorSpec
from edgemill.errors import DataError, ToolchainError
from edgemill.runtimes import open_model, runtime_of
from edgemill.runtimes.convert import batches, to_real, to_stored
from tests.runtimes import models


class RuntimeContract(ABC):
    """What every runtime must do; a new runtime adds one subclass."""

    kind: str
    distribution: str

    @abstractmethod
    def dense(self, folder, batch=None): ...

    @abstractmethod
    def dense_integer(self, folder): ...

    @pytest.mark.parametrize("count", [1, 2, 7, 300])
    def test_answers_any_number_of_samples(self, tmp_path, count):
        model = open_model(self.dense(tmp_path), self.kind)
        x = models.inputs(count)
        np.testing.assert_allclose(model.predict(x), models.answers(x), atol=1e-5)

    def test_no_samples_give_no_answers(self, tmp_path):
        answer = open_model(self.dense(tmp_path), self.kind).predict(models.inputs(0))
        assert answer.shape == (0, models.CLASSES)
        assert answer.dtype == np.float32

    @pytest.mark.parametrize("count", [1, 4, 5])
    def test_a_fixed_batch_is_filled_up(self, tmp_path, count):
        model = open_model(self.dense(tmp_path, batch=4), self.kind)
        assert model.signature.inputs[0].shape == (4, models.FEATURES)
        x = models.inputs(count)
        np.testing.assert_allclose(model.predict(x), models.answers(x), atol=1e-5)

    def test_free_batch_in_the_signature(self, tmp_path):
        signature = open_model(self.dense(tmp_path), self.kind).signature
        assert signature.inputs[0].shape == (None, models.FEATURES)
        assert signature.outputs[0].shape == (None, models.CLASSES)
        assert signature.inputs[0].dtype == "float32"
        assert signature.inputs[0].scale is None

    def test_integer_input_is_quantized_with_the_models_own_scale(self, tmp_path):
        model = open_model(self.dense_integer(tmp_path), self.kind)
        entry = model.signature.inputs[0]
        assert entry.scale is not None
        x = models.inputs(50)
        step = model.signature.outputs[0].scale + entry.scale * np.abs(models.WEIGHTS).sum(1).max()
        np.testing.assert_allclose(model.predict(x), models.answers(x), atol=step)

    @pytest.mark.parametrize("count", [1, 3])
    def test_prepared_call_answers_its_batch(self, tmp_path, count):
        model = open_model(self.dense(tmp_path), self.kind)
        x = models.inputs(count)
        call = model.prepare(x)
        np.testing.assert_allclose(call(), models.answers(x), atol=1e-5)

    def test_predicting_between_prepared_calls_disturbs_neither(self, tmp_path):
        model = open_model(self.dense(tmp_path), self.kind)
        x, other = models.inputs(4), models.inputs(9, seed=1)
        call = model.prepare(x)
        np.testing.assert_allclose(model.predict(other), models.answers(other), atol=1e-5)
        np.testing.assert_allclose(call(), models.answers(x), atol=1e-5)

    def test_threads_give_the_same_answers(self, tmp_path):
        path, x = self.dense(tmp_path), models.inputs(5)
        one, two = (open_model(path, self.kind, threads).predict(x) for threads in (1, 2))
        np.testing.assert_allclose(one, two, atol=1e-6)

    def test_wrong_shape_names_both_shapes(self, tmp_path):
        model = open_model(self.dense(tmp_path), self.kind)
        for call in (model.predict, model.prepare):
            with pytest.raises(DataError) as error:
                call(np.zeros((3, models.FEATURES + 1), np.float32))
            assert str(models.FEATURES) in error.value.expected
            assert str(models.FEATURES + 1) in error.value.got

    def test_not_a_number_cannot_be_an_integer(self, tmp_path):
        model = open_model(self.dense_integer(tmp_path), self.kind)
        with pytest.raises(DataError, match="NaN"):
            model.predict(np.full((1, models.FEATURES), np.nan, np.float32))

    @pytest.mark.parametrize("content", [b"", b"hello" * 100, b"TFL3" * 50, b"\x08\x08:\xff\xff\xff"])
    def test_hostile_file(self, tmp_path, content):
        path = tmp_path / "model"
        path.write_bytes(content)
        with pytest.raises(ToolchainError) as error:
            open_model(path, self.kind)
        assert str(path) in str(error.value)

    @pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.98])
    def test_truncated_file(self, tmp_path, share):
        content = self.dense(tmp_path).read_bytes()
        path = tmp_path / "cut"
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ToolchainError):
            open_model(path, self.kind)

    def test_missing_file(self, tmp_path):
        with pytest.raises(ToolchainError):
            open_model(tmp_path / "nothing", self.kind)

    def test_version_is_that_of_the_distribution(self):
        from importlib import metadata

        runtime = runtime_of(self.kind)
        assert runtime.version() == metadata.version(self.distribution)
        assert runtime.name == self.distribution
        assert self.kind in runtime.kinds

    def test_does_not_import_tensorflow(self, tmp_path):
        path = self.dense(tmp_path)
        script = (
            "import sys, json; from pathlib import Path; from edgemill.runtimes import open_model;"
            f"open_model(Path({str(path)!r}), {self.kind!r});"
            "print(json.dumps([m for m in ('tensorflow', 'tf_keras', 'onnx', 'torch') if m in sys.modules]))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == []


class TestOnnxRuntime(RuntimeContract):
    kind = "onnx"
    distribution = "onnxruntime"

    def dense(self, folder, batch=None):
        return models.dense_onnx(folder / "dense.onnx", batch=batch or "N")

    def dense_integer(self, folder):
        return models.dense_uint8_onnx(folder / "integer.onnx")

    def test_integer_input_without_a_scale_is_refused(self, tmp_path):
        path = models.dense_uint8_onnx(tmp_path / "integer.onnx", metadata=False)
        with pytest.raises(ToolchainError, match="does not say") as error:
            open_model(path, "onnx")
        assert "uint8" in error.value.got

    def test_broken_quantization_metadata_is_refused(self, tmp_path):
        path = models.dense_onnx(tmp_path / "dense.onnx")
        model = onnx.load(path)
        helper.set_model_props(model, {"edgemill.quantization": "[1, 2"})
        onnx.save(model, path)
        with pytest.raises(ToolchainError, match="metadata"):
            open_model(path, "onnx")

    def test_two_inputs_are_refused_by_name(self, tmp_path):
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("left", "right", "sum")]
        graph = helper.make_graph([helper.make_node("Add", ["left", "right"], ["sum"])], "two", values[:2], values[2:])
        path = tmp_path / "two.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        with pytest.raises(ToolchainError) as error:
            open_model(path, "onnx")
        assert error.value.got == "left, right"

    def test_quantization_at_run_time_answers_a_sample_as_if_alone(self, tmp_path):
        from onnxruntime.quantization import QuantType, quantize_dynamic

        source = models.dense_onnx(tmp_path / "dense.onnx")
        path = tmp_path / "dynamic.onnx"
        quantize_dynamic(source, path, weight_type=QuantType.QInt8)
        assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
        model = open_model(path, "onnx")
        small = models.inputs(1) / 50
        beside_a_large_one = np.concatenate([small, np.full((1, models.FEATURES), 100, np.float32)])
        np.testing.assert_array_equal(model.predict(small)[0], model.predict(beside_a_large_one)[0])


class TestLiteRt(RuntimeContract):
    kind = "tflite"
    distribution = "ai-edge-litert"

    def dense(self, folder, batch=None):
        return models.dense_tflite(folder / "dense.tflite", batch=batch)

    def dense_integer(self, folder):
        return models.dense_tflite(folder / "integer.tflite", "int8")

    def test_int16_input(self, tmp_path):
        model = open_model(models.dense_tflite(tmp_path / "int16.tflite", "int16"), "tflite")
        assert model.signature.inputs[0].dtype == "int16"
        x = models.inputs(20)
        np.testing.assert_allclose(model.predict(x), models.answers(x), atol=0.01)

    def test_custom_operator_is_refused(self, tmp_path):
        with pytest.raises(ToolchainError, match="cannot load"):
            open_model(models.dense_tflite(tmp_path / "custom.tflite", custom="Mystery"), "tflite")

    def test_xnnpack_takes_the_graph(self, tmp_path):
        from edgemill.runtimes.litert import LiteRtModel

        model = LiteRtModel(self.dense(tmp_path), threads=1)
        assert "DELEGATE" in {op["op_name"] for op in model.interpreter._get_ops_details()}


def test_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ToolchainError) as error:
        open_model(tmp_path / "model.mlmodel", "coreml")
    assert "onnx" in error.value.expected


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@given(data=st.data())
def test_quantization_round_trip_is_within_half_a_step(dtype, data):
    limits = np.iinfo(dtype)
    scale = data.draw(st.floats(1e-3, 10))
    zero = data.draw(st.integers(int(limits.min), int(limits.max)))
    spec = TensorSpec(name="x", dtype=dtype, shape=(None, 1), scale=scale, zero_point=zero)
    stored = np.array(data.draw(st.lists(st.integers(int(limits.min), int(limits.max)), min_size=1)), dtype)
    real = to_real(stored, spec)
    np.testing.assert_array_equal(to_stored(real, spec), stored)
    shifted = real + np.float32(0.4 * scale)
    inside = stored < limits.max
    np.testing.assert_allclose(to_real(to_stored(shifted, spec), spec)[inside], real[inside], atol=0.51 * scale)


def test_values_outside_the_type_are_clipped_not_wrapped():
    spec = TensorSpec(name="x", dtype="int8", shape=(None,), scale=0.1, zero_point=0)
    stored = to_stored(np.array([1e6, -1e6, 12.75], np.float32), spec)
    assert stored.tolist() == [127, -128, 127]


@given(count=st.integers(1, 40), size=st.integers(1, 9))
def test_batches_cover_every_sample_once(count, size):
    x = np.arange(count, dtype=np.float32).reshape(-1, 1)
    parts = list(batches(x, size))
    assert all(len(part) == size for part, _ in parts)
    np.testing.assert_array_equal(np.concatenate([part[:used] for part, used in parts]), x)
