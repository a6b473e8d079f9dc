"""uint8 weights are exactly the numbers of the int8 weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgemill.data.dataset import Dataset, SplitName
from edgemill.emulate.kernels import open_kernels
from edgemill.errors import ToolchainError
from edgemill.quantize import StaticSettings, UnsignedSettings, static
from edgemill.quantize.unsigned_weights import run, to_unsigned
from edgemill.runtimes import open_model
from edgemill.targets.spec import WeightType
from tests.emulate.models import AVX2, as_input, bright_net, context


def weight_types(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, fp32, data):
    folder = tmp_path_factory.mktemp("plain")
    made = static.run(StaticSettings(int8=AVX2.int8), {"onnx": fp32, "data": data}, context(folder / "step"))
    return as_input(made.files["onnx"].path, "onnx")


def test_step_keeps_every_answer(plain, data, tmp_path):
    out = run(UnsignedSettings(), {"onnx": plain}, context(tmp_path / "step"))
    path = out.files["onnx"].path
    assert len(out.facts["changed"]) == 3
    assert set(weight_types(onnx.load(str(path))).values()) == {TensorProto.UINT8}
    x = Dataset(data.path).features(SplitName.TEST)
    before = open_kernels(plain.path, "onnx", exact=True).predict(x)
    assert np.array_equal(open_model(path, "onnx").predict(x), before)
    assert np.array_equal(open_kernels(path, "onnx", exact=True).predict(x), before)


def test_static_quantization_makes_them_at_once(plain, fp32, data, tmp_path):
    int8 = AVX2.int8.model_copy(update={"weights": WeightType.UINT8})
    made = static.run(StaticSettings(int8=int8), {"onnx": fp32, "data": data}, context(tmp_path / "step"))
    path = made.files["onnx"].path
    assert made.facts["float_nodes"] == {}
    x = Dataset(data.path).features(SplitName.TEST)
    expected = open_kernels(plain.path, "onnx", exact=True).predict(x)
    assert np.array_equal(open_model(path, "onnx").predict(x), expected)


def test_real_weights_stay_to_the_bit(plain):
    model, after = onnx.load(str(plain.path)), onnx.load(str(plain.path))
    to_unsigned(after)

    def real(graph):
        held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        found = {}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in held:
                stored, zero = held[node.input[0]].astype(int), held[node.input[2]].astype(int)
                axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
                shape = [zero.size if place == axis else 1 for place in range(stored.ndim)]
                found[node.output[0]] = (stored - zero.reshape(shape), held[node.input[1]])
        return found

    before, now = real(model.graph), real(after.graph)
    assert before.keys() == now.keys()
    for name, (steps, scale) in before.items():
        assert np.array_equal(steps, now[name][0])
        assert np.array_equal(scale, now[name][1])


def test_dynamic_quantization_is_changed_too(tmp_path):
    source, target = bright_net(tmp_path / "net.onnx"), tmp_path / "dynamic.onnx"
    quantize_dynamic(str(source), str(target), op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    x = np.random.default_rng(0).uniform(0, 1, (20, 1, 8, 8)).astype(np.float32)
    before = open_kernels(target, "onnx", exact=True).predict(x)
    out = run(UnsignedSettings(), {"onnx": as_input(target, "onnx")}, context(tmp_path / "step"))
    assert np.array_equal(open_model(out.files["onnx"].path, "onnx").predict(x), before)


def test_a_model_without_int8_weights_is_refused(fp32, tmp_path):
    with pytest.raises(ToolchainError, match="no int8 weights"):
        run(UnsignedSettings(), {"onnx": fp32}, context(tmp_path / "step"))
