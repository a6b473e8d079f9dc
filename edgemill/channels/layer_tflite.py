"""A LiteRT file of one int8 layer, written without a converter.

It holds what the LiteRT converter writes for such a layer: int8 in and out with one scale, symmetric int8
weights with a scale per output channel, an int32 bias, and a fused ReLU (LiteRT 8-bit quantization
specification). The file takes a millisecond to make where the converter takes a second.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgemill.channels.cost import LayerShape

_VERSION, _IDENTIFIER = 3, b"TFL3"
_SCALE, _ZERO_POINT = 0.05, -128
_WEIGHT_SCALE = 0.002
_OPERATORS = {
    "conv": (schema.BuiltinOperator.CONV_2D, 5),
    "depthwise": (schema.BuiltinOperator.DEPTHWISE_CONV_2D, 6),
    "dense": (schema.BuiltinOperator.FULLY_CONNECTED, 5),
}
"""Operator and the version that takes per-channel int8 weights."""


def tflite_layer(shape: LayerShape, copies: int = 1, seed: int = 0) -> bytes:
    """A TFLite file in which `copies` layers of this shape read the same input.

    Args:
        shape: with channel counts above 0.
        copies: layers side by side, each with weights and an output of its own.
        seed: of the weights.

    Returns:
        the file: input int8 (1, height, width, inputs), `copies` outputs int8.
    """
    random = np.random.default_rng(seed)
    model = _Model()
    source = model.tensor("x", input_shape(shape), _quantization([_SCALE], [_ZERO_POINT]))
    answers = [_layer(model, shape, source, index, random) for index in range(copies)]
    return model.file([source], answers, *_OPERATORS[shape.kind])


def input_shape(shape: LayerShape) -> tuple[int, ...]:
    """Shape of the input, channels last, batch of one; a dense layer is applied height * width times."""
    if shape.kind == "dense":
        return (shape.height * shape.width, shape.inputs)
    return (1, shape.height, shape.width, shape.inputs)


def _layer(model: _Model, shape: LayerShape, source: int, index: int, random: np.random.Generator) -> int:
    size = {
        "conv": (shape.outputs, *shape.kernel, shape.inputs),
        "depthwise": (1, *shape.kernel, shape.outputs),
        "dense": (shape.outputs, shape.inputs),
    }[shape.kind]
    axis = 3 if shape.kind == "depthwise" else 0
    scales = [_WEIGHT_SCALE] * shape.outputs
    weights = random.integers(-127, 128, size, np.int8)
    bias = random.integers(-1000, 1000, shape.outputs, np.int32)
    inputs = [
        source,
        model.tensor(f"w{index}", size, _quantization(scales, [0] * shape.outputs, axis), weights),
        model.tensor(
            f"b{index}",
            (shape.outputs,),
            _quantization([_SCALE * _WEIGHT_SCALE] * shape.outputs, [0] * shape.outputs),
            bias,
        ),
    ]
    if shape.kind == "dense":
        made: tuple[int, ...] = (shape.height * shape.width, shape.outputs)
    else:
        made = (1, shape.output_height, shape.output_width, shape.outputs)
    answer = model.tensor(f"y{index}", made, _quantization([_SCALE], [_ZERO_POINT]))
    model.operator(inputs, answer, *_options(shape))
    return answer


def _options(shape: LayerShape) -> tuple[int, Any]:
    relu = schema.ActivationFunctionType.RELU
    if shape.kind == "dense":
        dense = schema.FullyConnectedOptionsT()
        dense.fusedActivationFunction = relu
        return schema.BuiltinOptions.FullyConnectedOptions, dense
    depthwise = shape.kind == "depthwise"
    options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME if shape.padding == "same" else schema.Padding.VALID
    options.strideH, options.strideW = shape.strides
    options.dilationHFactor, options.dilationWFactor = shape.dilation
    options.fusedActivationFunction = relu
    if depthwise:
        options.depthMultiplier = shape.outputs // shape.inputs
        return schema.BuiltinOptions.DepthwiseConv2DOptions, options
    return schema.BuiltinOptions.Conv2DOptions, options


def _quantization(scales: list[float], zero_points: list[int], axis: int = 0) -> Any:
    made = schema.QuantizationParametersT()
    made.scale, made.zeroPoint = scales, zero_points
    made.quantizedDimension = axis
    return made


class _Model:
    """One subgraph in the object form of the TFLite schema."""

    def __init__(self) -> None:
        self._buffers = [schema.BufferT()]
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []

    def tensor(self, name: str, size: tuple[int, ...], quantization: Any, value: NDArray[Any] | None = None) -> int:
        """Add a tensor; int8 unless its value has another type."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.quantization = name, list(size), quantization
        whole = value is not None and value.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if whole else schema.TensorType.INT8
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(value).view(np.uint8).reshape(-1)
            self._buffers.append(buffer)
            tensor.buffer = len(self._buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(self, inputs: list[int], output: int, kind: int, options: Any) -> None:
        """Add an operator of the file's only kind."""
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._graph.operators.append(operator)

    def file(self, inputs: list[int], outputs: list[int], operator: int, version: int) -> bytes:
        """The finished file."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = operator
        code.version = version
        self._graph.inputs, self._graph.outputs = inputs, outputs
        model = schema.ModelT()
        model.version = _VERSION
        model.operatorCodes, model.subgraphs, model.buffers = [code], [self._graph], self._buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())
