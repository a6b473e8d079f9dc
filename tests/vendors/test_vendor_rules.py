"""The rules of TensorRT and QNN: graphs that keep them, graphs that break each of them, and the rewriting."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType

from edgemill.compile import qnn_graph, qnn_rules, tensorrt_graph, tensorrt_rules
from edgemill.compile.qdq_tensors import QUANTIZE, Role, read_quantized, with_batch
from edgemill.errors import ToolchainError
from edgemill.runtimes import open_model
from edgemill.targets import load_target
from tests.runtimes import models
from tests.vendors.vendor_models import change, loaded, network, pairs

JETSON = load_target("jetson-tensorrt")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "float": network(folder),
        "int8": pairs(folder, QuantType.QInt8),
        "uint8": pairs(folder, QuantType.QUInt8),
    }


def answers(model, path, x):
    onnx.save(model, str(path))
    return open_model(path, "onnx").predict(x)


class TestTensorRt:
    @pytest.mark.parametrize("kind", ["float", "int8", "uint8"])
    def test_what_was_adapted_keeps_every_rule_and_answers_alike(self, files, kind, tmp_path):
        model = tensorrt_graph.adapt(loaded(files[kind]), kind)
        assert tensorrt_rules.violations(model, JETSON) == []
        onnx.checker.check_model(model, full_check=True)
        x = models.images(50, seed=3)
        before, after = open_model(files[kind], "onnx").predict(x), answers(model, tmp_path / "m.onnx", x)
        assert np.abs(before - after).mean() < 0.02 * np.ptp(before)

    def test_a_quantizer_of_other_makers_breaks_the_rules_and_each_is_named(self, files):
        told = "; ".join(tensorrt_rules.violations(with_batch(loaded(files["int8"]), 1, "m"), JETSON))
        assert "zero point" in told
        assert "bias b1" in told
        told = "; ".join(tensorrt_rules.violations(loaded(files["uint8"]), JETSON))
        assert "uint8 and not int8" in told
        assert "size of x" in told

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda m: setattr(m.opset_import[0], "version", JETSON.opset + 1), "opset"),
            (lambda m: setattr(m.graph.node[0], "op_type", "NonZeroCount"), "operator NonZeroCount"),
            (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "operator com.microsoft:"),
            (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].Clear(), "size of x"),
        ],
    )
    def test_what_the_parser_does_not_take_is_named(self, files, spoil, words):
        model = tensorrt_graph.adapt(loaded(files["int8"]), "m")
        spoil(model)
        (told,) = tensorrt_rules.violations(model, JETSON)
        assert words in told

    @pytest.mark.parametrize(("value", "words"), [(0.0, "scale 0.0"), (np.inf, "scale inf"), (-1.0, "scale -1.0")])
    def test_a_scale_that_is_none_is_named(self, files, value, words):
        model = tensorrt_graph.adapt(loaded(files["int8"]), "m")
        tensor = next(t for t in read_quantized(model) if t.node.op_type == QUANTIZE)
        change(model, tensor.node.input[1], np.float32(value))
        assert any(words in told for told in tensorrt_rules.violations(model, JETSON))

    def test_channels_along_the_wrong_axis_are_named(self, files):
        model = tensorrt_graph.adapt(loaded(files["int8"]), "m")
        weight = next(t for t in read_quantized(model) if t.role is Role.WEIGHT and t.per_channel)
        next(a for a in weight.node.attribute if a.name == "axis").i = 2
        (told,) = tensorrt_rules.violations(model, JETSON)
        assert weight.node.input[0] in told
        assert "axis 2" in told

    def test_a_symmetric_grid_reaches_as_far_and_no_further(self):
        assert tensorrt_graph.symmetric_scale(0.1, -128, "int8") == pytest.approx(0.1 * 255 / 127)
        assert tensorrt_graph.symmetric_scale(0.1, 0, "uint8") == pytest.approx(0.1 * 255 / 127)
        assert tensorrt_graph.symmetric_scale(0.1, 0, "int8") == pytest.approx(0.1 * 128 / 127)

    def test_a_relu_that_was_left_to_the_grid_comes_back(self, tmp_path):
        """x -> Relu -> Q -> DQ is written by quantizers as x -> Q -> DQ with the zero point at the lower end."""
        constants = {"s": np.float32(0.02), "z": np.int8(-128), "one": np.float32(1)}
        nodes = [
            helper.make_node("Mul", ["x", "one"], ["m"]),
            helper.make_node("QuantizeLinear", ["m", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "relu",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
            [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
        )
        model = tensorrt_graph.adapt(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), "m")
        y = answers(model, tmp_path / "relu.onnx", np.array([[-3, -0.5, 0.5, 3]], np.float32))
        np.testing.assert_allclose(y, [[0, 0, 0.5, 3]], atol=0.03)


class TestQnn:
    @pytest.mark.parametrize("kind", ["float", "uint8"])
    def test_what_was_adapted_keeps_every_rule_and_answers_alike(self, files, kind, tmp_path):
        model = qnn_graph.adapt(loaded(files[kind]), kind)
        assert qnn_rules.violations(model) == []
        x = models.images(30, seed=3)
        before, after = open_model(files[kind], "onnx").predict(x), answers(model, tmp_path / "m.onnx", x)
        np.testing.assert_allclose(before, after, atol=1e-5)

    def test_signed_activations_and_free_sizes_are_named(self, files):
        told = qnn_rules.violations(loaded(files["int8"]))
        assert any("is int8, neither uint8" in line for line in told)
        assert any("size of x" in line for line in told)

    @pytest.mark.parametrize(
        ("role", "what", "value", "words"),
        [
            (Role.ACTIVATION, 1, np.float32(1e-8), "less than 0.0001"),
            (Role.ACTIVATION, 1, np.float32(np.nan), "less than 0.0001"),
            (Role.BIAS, 2, None, "zero point 0"),
            (Role.WEIGHT, 2, None, "zero point other than 0"),
        ],
    )
    def test_each_broken_rule_is_named(self, files, role, what, value, words):
        model = qnn_graph.adapt(loaded(files["uint8"]), "m")
        tensor = next(t for t in read_quantized(model) if t.role is role)
        before = tensor.zero.astype(np.int32 if role is Role.BIAS else np.int8)
        change(model, tensor.node.input[what], before + 1 if value is None else value)
        assert any(words in told for told in qnn_rules.violations(model))

    def test_a_matrix_product_gets_one_scale(self, tmp_path):
        weights = np.array([[100, -50], [20, 127]], np.int8)
        constants = {
            "s": np.float32(0.02), "z": np.uint8(128), "w": weights, "ws": np.array([0.1, 0.001], np.float32),
            "wz": np.zeros(2, np.int8),
        }  # fmt: skip
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
            helper.make_node("MatMul", ["d", "wd"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
        )
        source = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        assert any("MatMul" in told for told in qnn_rules.violations(source))
        model = qnn_graph.adapt(source, "m")
        assert qnn_rules.violations(model) == []
        x = np.array([[1.0, -1.0]], np.float32)
        real = weights.astype(np.float32) * constants["ws"]
        step = np.abs(real).max() / 127
        assert np.abs(answers(model, tmp_path / "p.onnx", x) - x @ real).max() <= step + 0.02 * np.abs(real).sum()


def test_a_second_free_size_is_refused(tmp_path):
    model = loaded(network(tmp_path))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(ToolchainError) as error:
        with_batch(model, 1, "m")
    assert "x [1, 'height', 8, 1]" in error.value.got


def test_a_computed_scale_is_refused(tmp_path):
    model = loaded(pairs(tmp_path))
    quantize = next(node for node in model.graph.node if node.op_type == QUANTIZE)
    model.graph.node.insert(0, helper.make_node("Identity", [quantize.input[1]], ["computed"]))
    quantize.input[1] = "computed"
    with pytest.raises(ToolchainError, match="not constant"):
        read_quantized(model)
