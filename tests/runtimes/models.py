"""Small real model files, built without TensorFlow, for the tests of runtimes, compile and benchmark."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.recipe import Preprocess
from edgemill.step import InputFile, StepContext

FEATURES, CLASSES = 6, 3
IMAGE = (8, 8, 1)

WEIGHTS = (np.arange(FEATURES * CLASSES).reshape(CLASSES, FEATURES) % 7 - 3).astype(np.float32) / 8
BIAS = np.array([0.25, -0.5, 0.125], np.float32)
SCALES = {"int8": (1 / 32, 5), "int16": (1 / 4096, 0)}


def answers(x):
    """What every dense model below computes, in real numbers."""
    return x @ WEIGHTS.T + BIAS


def inputs(count, seed=0):
    return np.random.default_rng(seed).uniform(-2, 2, (count, FEATURES)).astype(np.float32)


# -- ONNX ----------------------------------------------------------------------------------------


def dense_onnx(path: Path, batch: int | str = "N", opset: int = 17, ir_version: int = 8, domain: str = "") -> Path:
    """y = W x + b."""
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1, domain=domain)]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")],
    )
    return _save(graph, path, opset, ir_version, domain)


def dense_uint8_onnx(path: Path, metadata: bool = True) -> Path:
    """The same with a uint8 input and output: DequantizeLinear, Gemm, QuantizeLinear."""
    scales = {"x": (np.float32(1 / 32), np.uint8(128)), "y": (np.float32(1 / 16), np.uint8(120))}
    constants = [numpy_helper.from_array(WEIGHTS, "w"), numpy_helper.from_array(BIAS, "b")]
    for name, (scale, zero) in scales.items():
        constants += [
            numpy_helper.from_array(np.array(scale), f"{name}_s"),
            numpy_helper.from_array(np.array(zero), f"{name}_z"),
        ]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "x_s", "x_z"], ["xf"]),
        helper.make_node("Gemm", ["xf", "w", "b"], ["yf"], transB=1),
        helper.make_node("QuantizeLinear", ["yf", "y_s", "y_z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense_uint8",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, ["N", CLASSES])],
        constants,
    )
    _save(graph, path)
    if metadata:
        model = onnx.load(path)
        text = '{"x": [0.03125, 128], "y": [0.0625, 120]}'
        helper.set_model_props(model, {"edgemill.quantization": text})
        onnx.save(model, path)
    return path


def conv_onnx(path: Path, opset: int = 17) -> Path:
    """Conv, Relu, Conv, Add, Relu, pooling, Gemm on channels-last images, as tf2onnx writes them."""
    rng = np.random.default_rng(3)

    def weights(name, *shape):
        return numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], name="conv1"),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], name="conv2"),
        helper.make_node("Add", ["r1", "c2"], ["a"]),
        helper.make_node("Relu", ["a"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1, name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *IMAGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [
            *(weights("w1", 8, 1, 3, 3), weights("b1", 8), weights("w2", 8, 8, 3, 3), weights("b2", 8)),
            *(weights("w3", 4, 8), weights("b3", 4)),
        ],
    )
    return _save(graph, path, opset)


def quantized(source: Path, path: Path, activations: QuantType) -> Path:
    """A QDQ model made by onnxruntime."""
    batches = iter([{"x": images(16, seed)} for seed in range(4)])

    class Reader(CalibrationDataReader):
        def get_next(self):
            return next(batches, None)

    quantize_static(
        source,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=activations,
        weight_type=QuantType.QInt8,
    )
    return path


def half_precision(source: Path, path: Path) -> Path:
    """A float16 model with float32 input and output."""
    model = onnx.load(source)
    for tensor in list(model.graph.initializer):
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        tensor.CopyFrom(half)
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = {"x": "xh", "y": "yh"}.get(name, name)
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["xh"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["yh"], ["y"], to=TensorProto.FLOAT))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _save(graph, path, opset=17, ir_version=8, domain=""):
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    onnx.save(model, path)
    return path


# -- TFLite --------------------------------------------------------------------------------------


def dense_tflite(path: Path, numbers: str = "float32", batch: int | None = None, custom: str | None = None) -> Path:
    """One FULLY_CONNECTED operator in float32, int8 or int16 (with int8 weights)."""
    model = schema.ModelT()
    model.version = 3
    model.description = b"dense"
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.FULLY_CONNECTED if custom is None else schema.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = code.builtinCode
    code.customCode = custom
    code.version = {"float32": 1, "int8": 4, "int16": 7}[numbers]
    model.operatorCodes = [code]
    weights, bias = WEIGHTS, BIAS
    scale, zero = SCALES.get(numbers, (None, None))
    y_scale, y_zero = (None, None) if scale is None else (scale * 2, zero)
    w_scale = None
    if scale is not None:
        w_scale = 1 / 8
        weights = np.rint(WEIGHTS / w_scale).astype(np.int8)
        bias = np.rint(BIAS / (scale * w_scale)).astype(np.int32 if numbers == "int8" else np.int64)
    model.buffers = [_buffer(None), _buffer(weights), _buffer(bias)]
    shape = [batch or 1, FEATURES]
    free = batch is None
    tensors = [
        _tensor("x", shape, numbers, 0, scale, zero, free),
        _tensor("w", list(weights.shape), weights.dtype.name, 1, w_scale, 0),
        _tensor("b", list(bias.shape), bias.dtype.name, 2, None if w_scale is None else scale * w_scale, 0),
        _tensor("y", [shape[0], CLASSES], numbers, 0, y_scale, y_zero, free),
    ]
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0, 1, 2], [3]
    if custom is None:
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators, graph.name = tensors, [0], [3], [operator], b"main"
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _buffer(values):
    buffer = schema.BufferT()
    buffer.data = None if values is None else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    return buffer


def _tensor(name, shape, dtype, buffer, scale, zero, free_batch=False):
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
    tensor.shapeSignature = [-1, *shape[1:]] if free_batch else None
    tensor.type = getattr(schema.TensorType, dtype.upper())
    if scale is not None:
        quantization = schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = [scale], [zero]
        tensor.quantization = quantization
    return tensor


# -- artifacts -----------------------------------------------------------------------------------


def images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *IMAGE)).astype(np.float32)


def dataset(folder: Path, x: np.ndarray) -> Path:
    """A dataset whose splits all hold `x`."""
    folder.mkdir()
    labels = {split: np.zeros(len(x), np.int64) for split in SplitName}
    write_dataset(folder, dict.fromkeys(SplitName, x), labels, Preprocess())
    return folder


def input_file(path: Path, kind: str) -> InputFile:
    artifact = Artifact(digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="test")
    return InputFile(path, artifact)


def context(folder: Path, messages: list | None = None) -> StepContext:
    out, resume = folder / "out", folder / "resume"
    out.mkdir(parents=True)
    resume.mkdir()
    said = [] if messages is None else messages
    return StepContext(
        out=out, resume=resume, seed=0, report=lambda fraction, message: said.append((fraction, message))
    )
