"""The compile steps for TensorRT, onnxruntime's format, QNN, RKNN, ExecuTorch and Core ML, on a small network."""

import json

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType

from edgemill.candidate import Model
from edgemill.compile.foreign import plain_answers
from edgemill.errors import ToolchainError
from edgemill.recipe import Budget, Scheme
from edgemill.results import Attempt, Reference, judge
from edgemill.runtimes import open_model
from edgemill.summary import Status
from edgemill.targets import load_target
from edgemill.targets.spec import By
from tests.runtimes import models
from tests.support.ready import usable
from tests.vendors.vendor_models import compiled, loaded, network, pairs


class TestTensorRt:
    def test_the_folder_holds_the_graph_and_how_it_is_built(self, tmp_path, state):
        target = load_target("jetson-tensorrt")
        record, files = compiled(tmp_path, target, pairs(tmp_path), Scheme.INT8_STATIC)
        assert sorted(path.name for path in files["model"].iterdir()) == ["build.json", "model.onnx"]
        build = json.loads((files["model"] / "build.json").read_text())
        command = build["command"]
        assert command[0] == "trtexec"
        assert "--onnx=model.onnx" in command
        # NVIDIA, Explicit Quantization: strong typing, and flags of precision "should not be specified"
        assert "--stronglyTyped" in command
        assert not {"--int8", "--fp16", "--best"} & set(command)
        assert build["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 8, 8, 1]}]
        assert build["outputs"] == [{"name": "y", "dtype": "float32", "shape": [1, 4]}]
        assert record.facts["agreement"] >= 0.9
        assert record.outputs["model"].kind == "tensorrt"

    def test_half_precision_is_in_the_graph(self, tmp_path, state):
        half = models.half_precision(network(tmp_path), tmp_path / "half.onnx")
        _, files = compiled(tmp_path, load_target("jetson-tensorrt"), half, Scheme.FP16)
        kinds = {tensor.data_type for tensor in loaded(files["model"] / "model.onnx").graph.initializer}
        assert kinds == {onnx.TensorProto.FLOAT16}

    def test_a_graph_that_breaks_a_rule_is_refused_by_name(self, tmp_path, state):
        source = models.dense_onnx(tmp_path / "foreign.onnx", domain="com.microsoft")
        model = loaded(source)
        model.graph.node[0].op_type = "FusedGemm"
        onnx.save(model, source)
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, load_target("jetson-tensorrt"), source, None)
        assert "com.microsoft:FusedGemm" in error.value.got


@pytest.mark.parametrize("name", ["jetson-tensorrt", "ios-coreml"])
def test_what_nothing_here_runs_never_passes(name):
    target = load_target(name)
    assert target.execution.by is By.NOTHING

    def gate(attempt):
        raise AssertionError("the gate was asked")

    model = Model(name="checkpoint", files={}, chain=())
    reference = Reference(model, 1.0, lambda: 1.0)
    result = judge(
        target, [Attempt(model, scheme, target) for scheme in (None, Scheme.FP16)], reference, Budget(), gate
    )
    assert {variant.status for variant in result.variants} == {Status.UNPROVEN}
    assert not any(variant.passed for variant in result.variants)
    assert result.selected_variant is None


class TestOrtFormat:
    @pytest.mark.parametrize("scheme", [None, Scheme.INT8_STATIC])
    def test_every_bit_is_that_of_the_onnx_file(self, tmp_path, state, scheme):
        source = network(tmp_path) if scheme is None else pairs(tmp_path)
        x = models.images(20, seed=9)
        record, files = compiled(tmp_path, load_target("android-arm64-ort"), source, scheme)
        other, onnx_files = compiled(tmp_path / "as_onnx", _made(tmp_path / "as_onnx"), source, scheme)
        np.testing.assert_array_equal(
            open_model(files["model"], "ort").predict(x), plain_answers(onnx_files["model"], x)
        )
        assert record.facts["op_counts"] == other.facts["op_counts"]

    def test_the_configuration_names_every_operator(self, tmp_path, state):
        record, files = compiled(tmp_path, load_target("android-arm64-ort"), pairs(tmp_path), Scheme.INT8_STATIC)
        text = (files["model"] / "required_operators_and_types.config").read_text()
        assert all(name in text for name in record.facts["op_counts"])
        assert "int8_t" in text
        assert record.facts["operators"]


def _made(folder):
    folder.mkdir()
    return load_target("raspberry-pi-5")


class TestQnn:
    @pytest.mark.parametrize("scheme", [Scheme.FP16, Scheme.INT8_STATIC])
    def test_everything_runs_on_the_emulated_npu(self, tmp_path, state, scheme):
        target = usable("qualcomm-qnn")
        source = network(tmp_path) if scheme is Scheme.FP16 else pairs(tmp_path, QuantType.QUInt8)
        record, files = compiled(tmp_path, target, source, scheme)
        assert record.facts["device"]["npu_share"] == 1.0
        assert record.facts["device"]["cpu_operators"] == []
        assert record.facts["device"]["source"] == "simulated:qnn-htp"
        assert record.facts["agreement"] >= 0.9
        if scheme is Scheme.FP16:
            assert record.facts["max_difference"] > 1e-5, "the emulator calculated in fp32"
        config = json.loads((files["model"] / "qnn.json").read_text())
        # onnxruntime-qnn, QNN-ExecutionProvider.md: names and values of the options
        assert config["provider_options"]["backend_type"] == "htp"
        assert config["provider_options"]["soc_model"] == target.options["soc_model"]
        assert config["session_options"] == {"session.disable_cpu_ep_fallback": "1"}

    def test_an_operator_that_the_npu_lacks_is_named(self, tmp_path, state):
        target = usable("qualcomm-qnn")
        model = loaded(network(tmp_path))
        model.graph.node[-1].output[0] = "before"
        model.graph.node.append(onnx.helper.make_node("Acosh", ["before"], ["y"]))
        onnx.save(model, tmp_path / "acosh.onnx")
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, target, tmp_path / "acosh.onnx", Scheme.FP16)
        assert "Acosh" in error.value.got


class TestRknn:
    @pytest.mark.parametrize("scheme", [Scheme.FP16, Scheme.INT8_STATIC, Scheme.INT8_QAT])
    def test_the_simulator_answers_for_the_file(self, tmp_path, state, scheme):
        target = usable("rockchip-rk3588")
        source = pairs(tmp_path) if scheme is Scheme.INT8_QAT else network(tmp_path)
        record, files = compiled(tmp_path, target, source, scheme)
        assert files["model"].read_bytes()[:4] == b"RKNN"
        assert record.outputs["executable"].kind == "rknn-source"
        assert record.facts["agreement"] >= 0.9
        assert record.facts["calibration_samples"] == (40 if scheme is Scheme.INT8_STATIC else 0)
        assert record.facts["device"]["latency_ms"] is None

    def test_what_rknn_says_is_in_the_error(self, tmp_path, state):
        target = usable("rockchip-rk3588")
        with pytest.raises(ToolchainError) as error:
            compiled(tmp_path, target, pairs(tmp_path), Scheme.INT8_STATIC)
        assert "set do_quantization = False" in error.value.got


@pytest.mark.slow
class TestTorch:
    @pytest.mark.parametrize("scheme", [None, Scheme.INT8_STATIC])
    def test_executorch(self, tmp_path, state, scheme):
        target = usable("android-arm64-executorch")
        record, files = compiled(tmp_path, target, network(tmp_path), scheme)
        assert files["model"].suffix == ".pte"
        assert record.facts["delegated"] >= 1
        assert record.facts["twin_difference"] < 1e-4
        assert record.facts["agreement"] >= 0.9

    def test_core_ml_gives_the_same_package_twice(self, tmp_path, state):
        target = usable("ios-coreml")
        digests = set()
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            record, files = compiled(tmp_path / name, target, network(tmp_path), Scheme.FP16)
            digests.add(record.outputs["model"].digest)
        assert len(digests) == 1
        assert (files["model"] / "Manifest.json").exists()
        assert record.facts["op_counts"]["conv"] == 2
        assert "max_difference" not in record.facts
