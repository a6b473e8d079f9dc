"""The rules that name causes, on small graphs as onnxruntime really optimizes them."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic

from edgemill.artifact import canonical_json
from edgemill.benchmark import CAUSES, CausesSettings
from edgemill.benchmark.causes import explain, ranked, run
from edgemill.benchmark.causes_cause import MINOR_SHARE, Case
from edgemill.benchmark.causes_graph import GraphView
from edgemill.benchmark.causes_model import copy_speed
from edgemill.benchmark.causes_onnx import name_causes
from edgemill.benchmark.profile_nodes import NodeTime, Profile
from edgemill.benchmark.profile_onnxruntime import profile_onnx
from edgemill.errors import DataError, ToolchainError
from tests.runtimes import models

X86 = platform.machine() in {"x86_64", "AMD64"}
x86_only = pytest.mark.skipif(not X86, reason="onnxruntime fuses other patterns on other CPUs")
CHANNELS = 4
IMAGES = np.random.default_rng(0).uniform(-1, 1, (1, CHANNELS, 6, 6)).astype(np.float32)


class Net:
    """A graph from tensor `x` (N, 4, 6, 6), node by node."""

    def __init__(self):
        self.nodes, self.constants = [], []
        self.rng = np.random.default_rng(1)

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, inputs, domain="", **attributes):
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"n{output}", domain=domain, **attributes))
        return output

    def pair(self, tensor, kind, zero, scale=1 / 32):
        parameters = [self.constant(np.float32(scale)), self.constant(np.array(zero, kind))]
        quantized = self.node("QuantizeLinear", [tensor, *parameters])
        return self.node("DequantizeLinear", [quantized, *parameters])

    def weights(self, zeros=0.0, quantized=True):
        values = self.rng.normal(0, 0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        values[self.rng.random(values.shape) < zeros] = 0
        if not quantized:
            return self.constant(values)
        stored = np.clip(np.round(values * 64), -127, 127).astype(np.int8)
        return self.node(
            "DequantizeLinear",
            [self.constant(stored), self.constant(np.float32(1 / 64)), self.constant(np.array(0, np.int8))],
        )

    def conv(self, tensor, quantized=True, zeros=0.0):
        return self.node("Conv", [tensor, self.weights(zeros, quantized)], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def qlinear_conv(self, tensor, activations, weights, zero_point=0):
        signed = {"uint8": 128, "int8": 0}
        stored = self.rng.integers(0, 100, (CHANNELS, CHANNELS, 3, 3)).astype(weights)
        scale, zero = self.constant(np.float32(1 / 32)), self.constant(np.array(signed[activations], activations))
        weight_zero = self.constant(np.array(signed[weights] + zero_point, weights))
        inputs = [tensor, scale, zero, self.constant(stored), self.constant(np.float32(1 / 64)), weight_zero]
        return self.node("QLinearConv", [*inputs, scale, zero], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def save(self, path, answer, batch="N"):
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *IMAGES.shape[1:]])],
            [helper.make_tensor_value_info(answer, TensorProto.FLOAT, [batch, None, None, None])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save_model(model, str(path))
        return path


def case_of(path, slower=True, machine="x86_64", x=IMAGES):
    found = profile_onnx(path, x, 1, per_inference_us=50.0, call_us=5.0)
    return Case(found.profile, None, slower, machine), GraphView(found.model, found.nodes, found.stored)


def causes_of(path, **options):
    return {cause.cause: cause for cause in name_causes(*case_of(path, **options))}


def counted(cause):
    return dict(text.rsplit(" x ", 1) for text in cause.operators)


class TestConvInteger:
    def test_dynamic_quantization_of_a_convolution(self, tmp_path):
        net = Net()
        path = net.save(tmp_path / "fp32.onnx", net.node("Relu", [net.conv("x", quantized=False)]))
        quantize_dynamic(str(path), str(tmp_path / "dynamic.onnx"))
        found = causes_of(tmp_path / "dynamic.onnx")
        assert set(found) == {"conv_integer"}
        assert {"ConvInteger", "DynamicQuantizeLinear", "Mul", "Cast"} <= set(counted(found["conv_integer"]))
        assert "int8_static" in found["conv_integer"].remedy

    def test_the_residual_sum_is_not_part_of_it(self, tmp_path):
        net = Net()
        path = net.save(
            tmp_path / "fp32.onnx", net.node("Add", [net.conv("x", quantized=False), net.conv("x", quantized=False)])
        )
        quantize_dynamic(str(path), str(tmp_path / "dynamic.onnx"))
        assert "Add" not in counted(causes_of(tmp_path / "dynamic.onnx")["conv_integer"])


class TestUnfused:
    def test_a_well_quantized_graph_has_no_cause_but_its_borders(self, tmp_path):
        net = Net()
        hidden = net.pair(net.node("Relu", [net.conv(net.pair("x", "uint8", 128))]), "uint8", 0)
        path = net.save(tmp_path / "m.onnx", net.pair(net.conv(hidden), "uint8", 120))
        assert set(causes_of(path)) <= {"conversion_overhead", "reorder"}

    def test_a_range_below_zero_keeps_relu_apart(self, tmp_path):
        net = Net()
        hidden = net.pair(net.node("Relu", [net.conv(net.pair("x", "uint8", 128))]), "uint8", 107)
        path = net.save(tmp_path / "m.onnx", net.pair(net.conv(hidden), "uint8", 120))
        found = causes_of(path)["unfused_qdq"]
        assert "107 of uint8" in found.text
        assert "start at 0" in found.remedy
        assert "1 Conv" in found.text

    def test_output_without_quantization(self, tmp_path):
        net = Net()
        path = net.save(tmp_path / "m.onnx", net.conv(net.pair("x", "uint8", 128)))
        assert "output is not quantized" in causes_of(path)["unfused_qdq"].text

    def test_operator_without_integer_kernel(self, tmp_path):
        net = Net()
        path = net.save(tmp_path / "m.onnx", net.pair(net.node("Erf", [net.pair("x", "uint8", 128)]), "uint8", 128))
        found = causes_of(path)["unfused_qdq"]
        assert "no integer kernel" in found.text
        assert "1 Erf" in found.text

    def test_sum_of_which_one_side_is_not_quantized(self, tmp_path):
        net = Net()
        total = net.node("Add", [net.pair("x", "uint8", 128), net.node("Sigmoid", ["x"])])
        path = net.save(tmp_path / "m.onnx", net.pair(total, "uint8", 128))
        assert "an input of theirs is not quantized" in causes_of(path)["unfused_qdq"].text

    def test_weights_alone(self, tmp_path):
        net = Net()
        path = net.save(tmp_path / "m.onnx", net.node("Relu", [net.conv("x")]))
        found = causes_of(path)
        assert set(found) == {"weight_only"}
        assert counted(found["weight_only"])["DequantizeLinear"] == "1"


class TestTypes:
    @x86_only
    def test_int8_pairs_read_twice_stay_floats_and_are_named(self, tmp_path):
        net = Net()
        hidden = net.pair(net.conv(net.pair("x", "int8", 3)), "int8", 5)
        total = net.node("Add", [net.pair(net.conv(hidden), "int8", 7), hidden])
        path = net.save(tmp_path / "m.onnx", net.pair(total, "int8", 9))
        found = causes_of(path)
        assert "signed_activations" in found
        assert "unfused_qdq" not in found
        assert "2 nodes read one tensor" in found["signed_activations"].text

    @x86_only
    def test_int8_with_another_reason_is_not_blamed_on_int8(self, tmp_path):
        net = Net()
        hidden = net.pair(net.node("Relu", [net.conv(net.pair("x", "int8", 0))]), "int8", 0)
        total = net.node("Add", [net.pair(net.conv(hidden), "int8", 7), hidden])
        found = causes_of(net.save(tmp_path / "m.onnx", net.pair(total, "int8", 9)))
        assert "Relu does not start at zero" in found["unfused_qdq"].text
        assert "also have int8" in found["unfused_qdq"].text

    @pytest.mark.parametrize(
        ("activations", "weights", "cause"),
        [("int8", "int8", "signed_activations"), ("uint8", "uint8", "unsigned_weights"), ("uint8", "int8", None)],
    )
    def test_integer_kernels(self, tmp_path, activations, weights, cause):
        net = Net()
        parameters = [net.constant(np.float32(1 / 32)), net.constant(np.array(0, activations))]
        answer = net.qlinear_conv(net.node("QuantizeLinear", ["x", *parameters]), activations, weights)
        path = net.save(tmp_path / "m.onnx", net.node("DequantizeLinear", [answer, *parameters]))
        kernels = {"signed_activations", "unsigned_weights"}
        assert set(causes_of(path)) & kernels == ({cause} if cause else set())
        assert not set(causes_of(path, machine="aarch64")) & kernels

    @pytest.mark.parametrize(("zero_point", "named"), [(0, False), (3, True)])
    def test_zero_point_of_weights(self, tmp_path, zero_point, named):
        net = Net()
        parameters = [net.constant(np.float32(1 / 32)), net.constant(np.array(0, np.uint8))]
        answer = net.qlinear_conv(net.node("QuantizeLinear", ["x", *parameters]), "uint8", "int8", zero_point)
        path = net.save(tmp_path / "m.onnx", net.node("DequantizeLinear", [answer, *parameters]))
        assert ("asymmetric_weights" in causes_of(path)) is named

    def test_sixteen_bit(self, tmp_path):
        net = Net()
        parameters = [net.constant(np.float32(1 / 3200)), net.constant(np.array(30000, np.uint16))]
        domain = "com.microsoft"
        entry = net.node(
            "DequantizeLinear", [net.node("QuantizeLinear", ["x", *parameters], domain), *parameters], domain
        )
        net.nodes[-1].domain = net.nodes[-2].domain = domain
        quantized = net.node("QuantizeLinear", [net.conv(entry), *parameters], domain)
        path = net.save(tmp_path / "m.onnx", net.node("DequantizeLinear", [quantized, *parameters], domain))
        model = onnx.load(path)
        model.opset_import.append(helper.make_opsetid(domain, 1))
        onnx.save_model(model, str(path))
        assert "other than 8 bits" in causes_of(path)["unfused_qdq"].text


class TestOthers:
    def test_transposes(self, tmp_path):
        net = Net()
        turned = net.node("Transpose", ["x"], perm=[0, 3, 1, 2])
        path = net.save(tmp_path / "m.onnx", net.node("Softmax", [turned], axis=1))
        assert counted(causes_of(path)["reorder"])["Transpose"] == "1"

    def test_casts_of_a_half_precision_model(self, tmp_path):
        net = Net()
        half = net.node("Cast", ["x"], to=TensorProto.FLOAT16)
        path = net.save(
            tmp_path / "m.onnx", net.node("Cast", [net.node("Softmax", [half], axis=1)], to=TensorProto.FLOAT)
        )
        found = causes_of(path)
        assert "conversion_overhead" in found
        assert set(counted(found["conversion_overhead"])) == {"Cast"}

    def test_another_provider_than_asked(self, tmp_path):
        net = Net()
        case, graph = case_of(net.save(tmp_path / "m.onnx", net.node("Erf", [net.node("Sigmoid", ["x"])])))
        nodes = (replace(case.profile.nodes[0], provider="OtherExecutionProvider"), *case.profile.nodes[1:])
        found = name_causes(replace(case, profile=replace(case.profile, nodes=nodes)), graph)
        assert [cause.cause for cause in found] == ["provider_fallback"]
        assert "OtherExecutionProvider" in found[0].text
        assert found[0].operators == (f"{nodes[0].operator} x 1",)

    @pytest.mark.parametrize(("zeros", "slower", "named"), [(0.8, True, True), (0.8, False, False), (0.0, True, False)])
    def test_zeros_of_a_pruned_model(self, tmp_path, zeros, slower, named):
        net = Net()
        path = net.save(tmp_path / "m.onnx", net.conv("x", quantized=False, zeros=zeros))
        assert ("dense_zeros" in causes_of(path, slower=slower)) is named

    @pytest.mark.parametrize(
        ("fixed_us", "slower", "named"), [(40.0, True, True), (40.0, False, False), (1.0, True, False)]
    )
    def test_call_takes_most(self, tmp_path, fixed_us, slower, named):
        net = Net()
        case, graph = case_of(net.save(tmp_path / "m.onnx", net.node("Erf", ["x"])), slower=slower)
        case = replace(case, profile=replace(case.profile, fixed_us=fixed_us))
        found = {cause.cause: cause for cause in name_causes(case, graph)}
        assert ("too_small" in found) is named
        if named:
            assert found["too_small"].share_of_time == pytest.approx(0.8)

    def test_memory_limits_what_reads_as_fast_as_a_copy(self, tmp_path):
        net = Net()
        case, graph = case_of(net.save(tmp_path / "m.onnx", net.node("Erf", ["x"])))
        size = 32 << 20
        at_limit = size / copy_speed(size)
        for us, named in ((at_limit / 2, True), (at_limit * 50, False)):
            nodes = (replace(case.profile.nodes[0], parameter_bytes=size, us=us),)
            found = name_causes(replace(case, profile=replace(case.profile, nodes=nodes)), graph)
            assert [cause.cause for cause in found] == (["memory_bound"] if named else [])


def profile(*nodes, fixed_us=None):
    entries = tuple(NodeTime(f"n{i}", kind, "CPU", us) for i, (kind, us) in enumerate(nodes))
    return Profile("test 1", "by hand", "CPU", entries, 100.0, fixed_us, 0.0)


class TestRanked:
    def test_most_expensive_first_and_minor_ones_left_out(self):
        case = Case(profile(("A", 60.0), ("B", 35.0), ("C", 100 * MINOR_SHARE / 2)), None, True, "x86_64")
        found = [case.cause(name, name, "", {index}, "") for index, name in ((1, "second"), (0, "first"), (2, "minor"))]
        assert [cause.cause for cause in ranked(case, found)] == ["first", "second"]

    def test_a_slow_model_without_cause_is_unexplained_with_its_operators(self):
        case = Case(profile(("A", 60.0), ("B", 40.0)), profile(("C", 90.0)), True, "x86_64")
        (only,) = ranked(case, [])
        assert only.cause == "unexplained"
        assert "A x 1 with 60 us (60 %)" in only.text

    def test_the_same_operators_as_the_baseline(self):
        case = Case(profile(("A", 60.0), ("B", 40.0)), profile(("B", 30.0), ("A", 70.0)), True, "x86_64")
        assert [cause.cause for cause in ranked(case, [])] == ["same_operators"]

    @pytest.mark.parametrize("slower", [False, None])
    def test_a_fast_model_needs_no_cause(self, slower):
        assert ranked(Case(profile(("A", 60.0)), None, slower, "x86_64"), []) == ()

    def test_no_node_profiled(self):
        (only,) = ranked(Case(profile(), profile(("A", 1.0)), True, "x86_64"), [])
        assert only.cause == "unexplained"
        assert only.operators == ()


class TestExplain:
    @pytest.fixture
    def baseline(self, tmp_path):
        net = Net()
        return net.save(tmp_path / "fp32.onnx", net.node("Relu", [net.conv("x", quantized=False)]))

    def test_step(self, tmp_path, baseline):
        quantize_dynamic(str(baseline), str(tmp_path / "dynamic.onnx"))
        inputs = {
            "variant": models.input_file(tmp_path / "dynamic.onnx", "onnx"),
            "baseline": models.input_file(baseline, "onnx"),
            "data": models.input_file(models.dataset(tmp_path / "data", np.repeat(IMAGES, 3, axis=0)), "dataset"),
        }
        outputs = run(CausesSettings(batch=2), inputs, models.context(tmp_path / "work"))
        facts = outputs.facts
        canonical_json(dict(facts))
        assert outputs.files == {}
        assert {"causes", "operators", "baseline_operators", "runtime", "per_inference_us", "host"} <= set(facts)
        assert facts["runtime"].startswith("onnxruntime ")
        assert any(row["operator"] == "ConvInteger" for row in facts["operators"])
        assert sum(row["share"] for row in facts["operators"]) == pytest.approx(1)
        with pytest.raises(DataError, match="fewer validation samples"):
            run(CausesSettings(batch=4), inputs, models.context(tmp_path / "again"))

    def test_declaration(self):
        assert CAUSES.exclusive
        assert CAUSES.body == "edgemill.benchmark.causes:run"

    def test_no_cause_is_counted_twice(self, tmp_path):
        net = Net()
        hidden = net.pair(net.node("Relu", [net.conv(net.pair("x", "int8", 1))]), "int8", 20)
        turned = net.node("Transpose", [hidden], perm=[0, 1, 3, 2])
        total = net.node("Add", [net.conv(hidden), net.node("Erf", [turned])])
        case, graph = case_of(net.save(tmp_path / "m.onnx", net.pair(total, "uint8", 9)))
        found = name_causes(case, graph)
        assert len(found) > 1
        assert sum(cause.us for cause in found) <= case.profile.total_us * 1.0001

    def test_free_batch_and_unnamed_nodes(self, tmp_path, baseline):
        model = onnx.load(baseline)
        for node in model.graph.node:
            node.name = ""
        onnx.save_model(model, str(tmp_path / "unnamed.onnx"))
        found = explain(tmp_path / "unnamed.onnx", "onnx", np.repeat(IMAGES, 5, axis=0))
        assert found.ratio is None
        assert found.operators
        assert {cause.cause for cause in found.causes} <= {"too_small", "reorder"}

    def test_model_that_computes_nothing(self, tmp_path, baseline):
        net = Net()
        path = net.save(tmp_path / "m.onnx", net.node("Identity", [net.constant(IMAGES)]), batch=1)
        found = explain(path, "onnx", IMAGES, baseline)
        assert found.ratio is not None
        assert all(np.isfinite(row.us) for row in found.operators)

    @pytest.mark.parametrize("kind", ["onnx", "tflite", "unknown"])
    def test_damaged_file(self, tmp_path, kind):
        (tmp_path / "bad").write_bytes(b"nothing")
        with pytest.raises(ToolchainError):
            explain(tmp_path / "bad", kind, IMAGES)
