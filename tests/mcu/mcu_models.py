"""TFLite files for microcontrollers, written without TensorFlow, and a store in which they are compiled."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgemill.artifact import Artifact
from edgemill.compile import CompileSettings
from edgemill.compile.backend import backend_of
from edgemill.data.dataset import SplitName, write_dataset
from edgemill.emulate.machine import how_executed
from edgemill.execute import Call, execute
from edgemill.recipe import Preprocess, Scheme, Task
from edgemill.store import Store
from edgemill.validate import PREDICT, PredictSettings

FEATURES = 16
_VERSIONS = {"FULLY_CONNECTED": {"int8": 4, "float32": 1, "hybrid": 3}}


def dense(path, widths=(24, 10), numbers="int8", per_channel=False, fused=None, last=None, seed=0):
    """Layers FULLY_CONNECTED, with an operator without parameters after them.

    Args:
        widths: outputs of each layer.
        numbers: int8, float32, or hybrid (int8 weights beside float activations, as dynamic range makes them).
        per_channel: a scale for each output.
        fused: activation of every layer, e.g. RELU.
        last: name of a further operator, e.g. L2_NORMALIZATION.
    """
    rng = np.random.default_rng(seed)
    model = schema.ModelT()
    model.version, model.description = 3, b"dense"
    model.buffers, model.operatorCodes, tensors, operators = [_buffer(None)], [], [], []
    activation = "int8" if numbers == "int8" else "float32"

    def add(name, shape, dtype, values=None, scales=None, zero=0):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name.encode(), list(shape), getattr(schema.TensorType, dtype.upper())
        tensor.buffer = 0
        if values is not None:
            model.buffers.append(_buffer(values))
            tensor.buffer = len(model.buffers) - 1
        if scales is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = list(scales), [zero] * len(scales)
            quantization.quantizedDimension = 0
            tensor.quantization = quantization
        tensors.append(tensor)
        return len(tensors) - 1

    def operator(name, inputs, outputs, options):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = _VERSIONS[name][numbers] if name in _VERSIONS else (2 if numbers == "int8" else 1)
        model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, inputs, outputs
        made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        made.builtinOptions = options
        operators.append(made)

    scale, zero, size = (0.031, 3, FEATURES) if numbers == "int8" else (None, 0, FEATURES)
    current = first = add("x", (1, size), activation, scales=None if scale is None else [scale], zero=zero)
    for layer, width in enumerate(widths):
        real = rng.normal(0, 1 / np.sqrt(size), (width, size))
        bias = rng.normal(0, 0.1, width)
        if numbers == "float32":
            weights, w_scales, bias_values, b_scales = real.astype(np.float32), None, bias.astype(np.float32), None
        else:
            largest = np.abs(real).max(1) if per_channel else np.array([np.abs(real).max()])
            w_scales = (largest / 127).astype(np.float32)
            weights = np.rint(real / w_scales[:, None]).astype(np.int8)
            if numbers == "int8":
                b_scales = w_scales * np.float32(scale)
                bias_values = np.rint(bias / b_scales).astype(np.int32)
            else:
                bias_values, b_scales = bias.astype(np.float32), None
        w = add(f"w{layer}", weights.shape, weights.dtype.name, weights, w_scales)
        b = add(f"b{layer}", (width,), bias_values.dtype.name, bias_values, b_scales)
        scale, zero, size = (0.037, -4, width) if numbers == "int8" else (None, 0, width)
        y = add(f"y{layer}", (1, width), activation, scales=None if scale is None else [scale], zero=zero)
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = getattr(schema.ActivationFunctionType, fused or "NONE")
        operator("FULLY_CONNECTED", [current, w, b], [y], options)
        current = y
    if last:
        y = add("last", (1, size), activation, scales=[1 / 128] if numbers == "int8" else None)
        operator(last, [current], [y], schema.L2NormOptionsT())
        current = y
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators, graph.name = (
        tensors,
        [first],
        [current],
        operators,
        b"main",
    )
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _buffer(values):
    buffer = schema.BufferT()
    buffer.data = None if values is None else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    return buffer


def samples(count, seed=1):
    """Inputs of the models above, float32 (count, FEATURES)."""
    return np.random.default_rng(seed).normal(0, 1, (count, FEATURES)).astype(np.float32)


class Bench:
    """A store with a dataset, and steps that run on models in it."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(folder / "store")
        self.x = samples(96)
        data = folder / "data"
        data.mkdir()
        labels = {split: np.arange(len(self.x)) % 10 for split in SplitName}
        write_dataset(data, dict.fromkeys(SplitName, self.x), labels, Preprocess())
        self.data = self._put(data, "dataset")

    def compile(self, target, path, scheme=Scheme.INT8_STATIC):
        """Record of the compile step."""
        settings = CompileSettings(target=target.essence, scheme=scheme)
        inputs = {"model": self._put(path, "tflite"), "data": self.data}
        call = Call(backend_of(target).step, settings, inputs, toolchain=target.toolchain)
        return execute(self.store, call, lambda *_: None).record

    def answers(self, target, record):
        """Record of the predictions on validation data, and the predictions."""
        machine = how_executed(target)
        settings = PredictSettings(split=SplitName.VALIDATION, task=Task.CLASSIFICATION, machine=machine)
        inputs = {"model": record.outputs.get("executable", record.outputs["model"]), "data": self.data}
        call = Call(PREDICT, settings, inputs, toolchain=machine.toolchain)
        predicted = execute(self.store, call, lambda *_: None).record
        return predicted, np.load(self.store.path(predicted.outputs["predictions"]))

    def bytes_of(self, artifact):
        return self.store.path(artifact).read_bytes()

    def _put(self, path, kind) -> Artifact:
        return self.store.put(path, kind=kind, step="test", parents=(), signature=None, facts={})
