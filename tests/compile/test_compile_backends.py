from abc import ABC, abstractmethod

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType

from edgemill.artifact import digest_path
from edgemill.compile import CompileSettings
from edgemill.compile import litert as litert_body
from edgemill.compile import onnxruntime as ort_body
from edgemill.compile.onnx_graph import edge_quantization, float_nodes, opset_of, unfused_pairs
from edgemill.compile.verify import compare
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Scheme
from edgemill.runtimes import open_model, runtime_of
from edgemill.targets import load_target
from tests.runtimes import models

X86, ARM, ANDROID = (load_target(name) for name in ("x86-64-vnni", "raspberry-pi-5", "android-arm64"))
BODIES = {"onnxruntime": ort_body.run, "litert": litert_body.run}


def young_operator(path, name):
    """Gemm and an operator that came with opset 24."""
    inputs = {"Swish": ["h"], "TensorScatter": ["h", "h"]}[name]
    model = onnx.load(models.dense_onnx(path, opset=24, ir_version=11))
    (gemm,) = model.graph.node
    gemm.output[0] = "h"
    model.graph.node.append(helper.make_node(name, inputs, ["y"]))
    onnx.save(model, path)
    return path


def compiled(tmp_path, target, path, scheme, x):
    kind = "tflite" if target.backend == "litert" else "onnx"
    data = tmp_path / "data"
    if not data.exists():
        models.dataset(data, x)
    folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
    inputs = {"model": models.input_file(path, kind), "data": models.input_file(data, "dataset")}
    before = digest_path(path)
    outputs = BODIES[target.backend](CompileSettings(target=target, scheme=scheme), inputs, models.context(folder))
    assert digest_path(path) == before
    assert [file.name for file in (folder / "out").iterdir()] == [outputs.files["model"].path.name]
    return outputs


class CompileContract(ABC):
    """What every compile backend must do; a new backend adds one subclass."""

    target_name: str
    kind: str

    @property
    def target(self):
        return load_target(self.target_name)

    @abstractmethod
    def fp32(self, folder): ...

    @abstractmethod
    def int8(self, folder): ...

    @abstractmethod
    def samples(self, count): ...

    def test_fp32_answers_as_before(self, tmp_path):
        source = self.fp32(tmp_path)
        outputs = compiled(tmp_path, self.target, source, None, self.samples(20))
        x = self.samples(30)
        before, after = (open_model(path, self.kind).predict(x) for path in (source, outputs.files["model"].path))
        np.testing.assert_allclose(before, after, atol=1e-5)

    def test_output_file(self, tmp_path):
        outputs = compiled(tmp_path, self.target, self.fp32(tmp_path), None, self.samples(20))
        file = outputs.files["model"]
        assert file.kind == self.kind
        assert file.signature == open_model(file.path, self.kind).signature

    def test_same_input_gives_the_same_bytes(self, tmp_path):
        source, x = self.int8(tmp_path), self.samples(20)
        first, second = (
            compiled(tmp_path, self.target, source, Scheme.INT8_STATIC, x).files["model"].path for _ in range(2)
        )
        assert first != second
        assert first.read_bytes() == second.read_bytes()

    def test_int8_model_has_no_float_operators_left(self, tmp_path):
        facts = compiled(tmp_path, self.target, self.int8(tmp_path), Scheme.INT8_STATIC, self.samples(20)).facts
        assert facts["float_nodes"] == []
        assert facts["nodes"] == sum(facts["op_counts"].values()) > 0

    def test_float_operators_in_an_int8_model_are_named(self, tmp_path):
        facts = compiled(tmp_path, self.target, self.fp32(tmp_path), Scheme.INT8_STATIC, self.samples(20)).facts
        assert facts["float_nodes"]

    def test_facts_name_versions_and_the_comparison(self, tmp_path):
        facts = compiled(tmp_path, self.target, self.fp32(tmp_path), None, self.samples(20)).facts
        assert facts["runtime_version"] == runtime_of(self.kind).version()
        assert facts["compared"] == 20
        assert facts["mean_difference"] <= facts["max_difference"] < 1e-3
        assert facts["agreement"] == 1.0

    @pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x08:\xff\xff\xff"])
    def test_hostile_file(self, tmp_path, content):
        path = tmp_path / "model"
        path.write_bytes(content)
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, self.target, path, None, self.samples(5))
        assert str(path) in str(error.value)

    def test_data_of_another_shape(self, tmp_path):
        with pytest.raises(DataError) as error:
            compiled(tmp_path, self.target, self.fp32(tmp_path), None, np.zeros((5, 3, 3, 3), np.float32))
        assert "(3, 3, 3)" in error.value.got


class OnnxRuntimeContract(CompileContract):
    kind = "onnx"
    activations: QuantType

    def fp32(self, folder):
        return models.conv_onnx(folder / "conv.onnx")

    def int8(self, folder):
        return models.quantized(self.fp32(folder), folder / "int8.onnx", self.activations)

    def samples(self, count):
        return models.images(count, seed=7)

    def test_graph_is_fused_and_tied_to_no_cpu(self, tmp_path):
        outputs = compiled(tmp_path, self.target, self.fp32(tmp_path), None, self.samples(20))
        model = onnx.load(outputs.files["model"].path)
        assert outputs.facts["level"] == "extended"
        assert "FusedConv" in outputs.facts["op_counts"]
        assert {node.domain for node in model.graph.node} <= {"", "com.microsoft"}
        assert {entry.domain for entry in model.opset_import} <= {"", "com.microsoft"}

    def test_int8_becomes_integer_operators(self, tmp_path):
        facts = compiled(tmp_path, self.target, self.int8(tmp_path), Scheme.INT8_STATIC, self.samples(20)).facts
        assert facts["level"] == "extended"
        assert facts["unfused_pairs"] == []
        assert facts["op_counts"]["QLinearConv"] == 2
        assert "Conv" not in facts["op_counts"]

    def test_half_precision_stays_half_the_size_and_is_left_to_the_device(self, tmp_path):
        source = self.fp32(tmp_path)
        half = models.half_precision(source, tmp_path / "half.onnx")
        outputs = compiled(tmp_path, self.target, half, Scheme.FP16, self.samples(20))
        model = onnx.load(outputs.files["model"].path)
        types = {tensor.data_type for tensor in model.graph.initializer}
        assert types == {TensorProto.FLOAT16}
        if outputs.facts["level"] == "none":
            assert any("half" in reason for reason in outputs.facts["level_reasons"])
            assert outputs.facts["op_counts"]["Cast"] == 2

    def test_newer_opset_than_the_oldest_runtime_reads_is_lowered(self, tmp_path):
        path = models.dense_onnx(tmp_path / "new.onnx", opset=self.target.opset + 1)
        outputs = compiled(tmp_path, self.target, path, None, models.inputs(5))
        assert opset_of(onnx.load(outputs.files["model"].path)) <= self.target.opset
        assert outputs.facts["adapted"] == [f"opset {self.target.opset + 1} lowered to {self.target.opset}"]

    def test_operators_younger_than_the_oldest_runtime_are_replaced(self, tmp_path):
        path = young_operator(tmp_path / "young.onnx", "Swish")
        outputs = compiled(tmp_path, self.target, path, None, models.inputs(5))
        assert "Swish" not in outputs.facts["op_counts"]
        assert "Swish" in outputs.facts["adapted"][0]

    def test_operators_without_an_older_form_are_named(self, tmp_path):
        path = young_operator(tmp_path / "young.onnx", "TensorScatter")
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, self.target, path, None, models.inputs(5))
        assert "TensorScatter" in error.value.got
        assert str(self.target.opset) in error.value.expected

    def test_newer_ir_version_is_lowered(self, tmp_path):
        path = models.dense_onnx(tmp_path / "new.onnx", ir_version=self.target.ir_version + 1)
        outputs = compiled(tmp_path, self.target, path, None, models.inputs(5))
        assert onnx.load(outputs.files["model"].path).ir_version == self.target.ir_version
        assert outputs.facts["ir_version"] == self.target.ir_version

    @pytest.mark.parametrize("domain", ["my.company", "com.microsoft"])
    def test_unknown_operator_is_named(self, tmp_path, domain):
        path = models.dense_onnx(tmp_path / "custom.onnx", domain=domain)
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, self.target, path, None, models.inputs(5))
        assert error.value.got == f"{domain}:Gemm"

    def test_weights_in_other_files_are_refused(self, tmp_path):
        source, path = self.fp32(tmp_path), tmp_path / "outside.onnx"
        onnx.save_model(onnx.load(source), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, self.target, path, None, self.samples(5))
        assert "w1" in error.value.got

    def test_integer_input_keeps_its_meaning(self, tmp_path):
        source = models.dense_uint8_onnx(tmp_path / "integer.onnx", metadata=True)
        model = onnx.load(source)
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "bare.onnx")
        assert edge_quantization(model) == {"x": (0.03125, 128), "y": (0.0625, 120)}

        outputs = compiled(tmp_path, self.target, source, None, models.inputs(5))
        signature = outputs.files["model"].signature
        assert (signature.inputs[0].scale, signature.inputs[0].zero_point) == (0.03125, 128)
        assert (signature.outputs[0].scale, signature.outputs[0].zero_point) == (0.0625, 120)

    def test_metadata_of_the_source_is_kept(self, tmp_path):
        source = self.fp32(tmp_path)
        model = onnx.load(source)
        helper.set_model_props(model, {"author": "someone"})
        onnx.save(model, source)
        outputs = compiled(tmp_path, self.target, source, None, self.samples(5))
        metadata = {entry.key: entry.value for entry in onnx.load(outputs.files["model"].path).metadata_props}
        assert metadata == {"author": "someone", "edgemill.target": self.target.name, "edgemill.level": "extended"}


class TestX86(OnnxRuntimeContract):
    target_name = "x86-64-vnni"
    activations = QuantType.QUInt8


class TestArm(OnnxRuntimeContract):
    target_name = "raspberry-pi-5"
    activations = QuantType.QInt8

    def test_signed_activations_stay_signed_whatever_the_host(self, tmp_path):
        outputs = compiled(tmp_path, ARM, self.int8(tmp_path), Scheme.INT8_STATIC, self.samples(20))
        model = onnx.load(outputs.files["model"].path)
        assert TensorProto.UINT8 not in {tensor.data_type for tensor in model.graph.initializer}

    def test_a_rewrite_for_this_host_is_seen(self, tmp_path):
        signed = onnx.load(self.int8(tmp_path))
        unsigned = onnx.load(models.quantized(self.fp32(tmp_path), tmp_path / "u8.onnx", QuantType.QUInt8))
        assert ort_body.host_specific(signed, signed, ARM) == []
        reasons = ort_body.host_specific(signed, unsigned, ARM)
        assert any("uint8" in reason for reason in reasons)

    def test_operators_of_one_cpu_family_are_seen(self, tmp_path):
        source = onnx.load(self.fp32(tmp_path))
        blocked = onnx.load(self.fp32(tmp_path))
        blocked.graph.node[1].domain = "com.microsoft.nchwc"
        assert any("nchwc" in reason for reason in ort_body.host_specific(source, blocked, ARM))

    def test_operators_newer_than_the_oldest_runtime_are_seen(self, tmp_path):
        source = onnx.load(self.fp32(tmp_path))
        newer = onnx.load(self.fp32(tmp_path))
        newer.graph.node[1].domain, newer.graph.node[1].op_type = "com.microsoft", "GatedAdd"
        assert any("GatedAdd" in reason for reason in ort_body.host_specific(source, newer, ARM))

    def test_grown_weights_are_seen(self, tmp_path):
        source = onnx.load(models.half_precision(self.fp32(tmp_path), tmp_path / "half.onnx"))
        assert any("larger" in r for r in ort_body.host_specific(source, onnx.load(self.fp32(tmp_path)), ARM))


class TestLiteRt(CompileContract):
    target_name = "android-arm64"
    kind = "tflite"

    def fp32(self, folder):
        return models.dense_tflite(folder / "dense.tflite")

    def int8(self, folder):
        return models.dense_tflite(folder / "int8.tflite", "int8")

    def samples(self, count):
        return models.inputs(count, seed=7)

    def test_file_is_not_touched(self, tmp_path):
        source = self.int8(tmp_path)
        outputs = compiled(tmp_path, ANDROID, source, Scheme.INT8_STATIC, self.samples(5))
        assert digest_path(outputs.files["model"].path) == digest_path(source)
        assert outputs.facts["inputs"] == outputs.facts["outputs"] == ["int8"]

    @pytest.mark.parametrize(("numbers", "left"), [("float32", []), ("int8", []), ("int16", ["FULLY_CONNECTED"])])
    def test_delegate_takes_float_and_int8_but_not_int16(self, tmp_path, numbers, left):
        source = models.dense_tflite(tmp_path / "model.tflite", numbers)
        scheme = None if numbers == "float32" else Scheme.INT8_STATIC
        facts = compiled(tmp_path, ANDROID, source, scheme, self.samples(5)).facts
        assert facts["undelegated"] == left
        assert facts["delegated_nodes"] == 1 - len(left)

    @pytest.mark.parametrize("name", ["Mystery", "FlexErf"])
    def test_custom_operator_is_named(self, tmp_path, name):
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, ANDROID, models.dense_tflite(tmp_path / "c.tflite", custom=name), None, self.samples(5))
        assert error.value.got == name


class TestComparison:
    def test_broken_answers_are_refused(self):
        reference = np.eye(10, dtype=np.float32)[np.arange(64) % 10]
        shuffled = reference[:, ::-1].copy()
        for numbers in ("float", "half", "integer"):
            with pytest.raises(ToolchainError, match="does not give"):
                compare(reference, shuffled, numbers, "file")

    def test_rounding_is_accepted_in_integers_only(self):
        reference = np.random.default_rng(0).uniform(0, 1, (64, 10)).astype(np.float32)
        rounded = np.round(reference * 16) / 16
        assert compare(reference, rounded, "integer", "file")["mean_difference"] > 0.001
        with pytest.raises(ToolchainError):
            compare(reference, rounded, "float", "file")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_a_number_is_refused(self, value):
        good = np.ones((4, 2), np.float32)
        bad = np.full((4, 2), value, np.float32)
        for reference, answer in ((good, bad), (bad, bad)):
            with pytest.raises(ToolchainError, match="NaN"):
                compare(reference, answer, "integer", "file")

    def test_other_shape_is_refused(self):
        with pytest.raises(ToolchainError, match="shape"):
            compare(np.ones((4, 2), np.float32), np.ones((4, 3), np.float32), "float", "file")

    def test_regression_has_no_agreement(self):
        reference = np.arange(8, dtype=np.float32).reshape(8, 1)
        assert compare(reference, reference, "float", "file")["agreement"] is None


def test_float_nodes_and_pairs_of_a_plain_qdq_graph(tmp_path):
    source = models.conv_onnx(tmp_path / "conv.onnx")
    model = onnx.load(models.quantized(source, tmp_path / "q.onnx", QuantType.QUInt8))
    assert unfused_pairs(model)
    assert {name.split()[0] for name in float_nodes(model)} >= {"Conv", "Gemm"}
    assert [name for name in float_nodes(model) if name.startswith(("Transpose", "Flatten"))] == []
