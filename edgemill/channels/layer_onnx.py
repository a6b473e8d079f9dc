"""An ONNX file of one int8 layer in QDQ form, as `quantize.static` makes it.

The input arrives channels last and is transposed to ONNX's order, the output goes back: onnxruntime's own
layout rewriting for int8 convolutions cancels both, so that the session runs the quantized layer and nothing
else, as it stands in the middle of a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemill.channels.cost import LayerShape
from edgemill.channels.layer_tflite import input_shape
from edgemill.targets.spec import ActivationType, Int8Arithmetic, WeightType

_OPSET, _IR_VERSION = 17, 8
_SCALE, _WEIGHT_SCALE = 0.05, 0.002
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


def onnx_layer(shape: LayerShape, arithmetic: Int8Arithmetic, copies: int = 1, seed: int = 0) -> bytes:
    """An ONNX file in which `copies` layers of this shape, each with a fused ReLU, read the same input.

    Args:
        shape: with channel counts above 0.
        arithmetic: integer types of the target.
        copies: layers side by side, each with weights and an output of its own.
        seed: of the weights.

    Returns:
        the file: input `x` (1, height, width, inputs), or (height * width, inputs) of a dense layer, and outputs
        in the integer type of the activations.
    """
    graph = _Graph(arithmetic, seed)
    dense = shape.kind == "dense"
    before = "x" if dense else graph.node("Transpose", ["x"], perm=_FIRST)
    real = graph.node("DequantizeLinear", [before, graph.scale, graph.zero_point])
    answers = []
    for _ in range(copies):
        made = graph.node("Gemm", [real, *graph.dense(shape)]) if dense else _convolution(graph, shape, real)
        after = graph.node("QuantizeLinear", [graph.node("Relu", [made]), graph.scale, graph.zero_point])
        answers.append(after if dense else graph.node("Transpose", [after], perm=_LAST))
    return graph.file(input_shape(shape), answers)


def _convolution(graph: _Graph, shape: LayerShape, real: str) -> str:
    return graph.node(
        "Conv",
        [real, *graph.kernel(shape)],
        kernel_shape=list(shape.kernel),
        strides=list(shape.strides),
        dilations=list(shape.dilation),
        group=shape.inputs if shape.kind == "depthwise" else 1,
        auto_pad="SAME_UPPER" if shape.padding == "same" else "VALID",
    )


class _Graph:
    """Nodes and constants."""

    def __init__(self, arithmetic: Int8Arithmetic, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        unsigned = arithmetic.activations is ActivationType.UINT8
        self._activation = np.uint8 if unsigned else np.int8
        self._weights = arithmetic.weights
        self._limit = 63 if arithmetic.reduce_range else 127
        self._per_channel = arithmetic.per_channel
        self.scale = self._constant("scale", np.array(_SCALE, np.float32))
        self.zero_point = self._constant("zero_point", np.array(0 if unsigned else -128, self._activation))

    def node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def kernel(self, shape: LayerShape) -> tuple[str, str]:
        """Dequantized kernel and bias of a convolution."""
        per_output = 1 if shape.kind == "depthwise" else shape.inputs
        return self._pair((shape.outputs, per_output, *shape.kernel), shape.outputs, 0)

    def dense(self, shape: LayerShape) -> tuple[str, str]:
        """Dequantized matrix and bias of a dense layer."""
        return self._pair((shape.inputs, shape.outputs), shape.outputs, 1)

    def file(self, size: tuple[int, ...], outputs: list[str]) -> bytes:
        """The finished file."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self._activation))
        graph = helper.make_graph(
            self._nodes,
            "layer",
            [helper.make_tensor_value_info("x", kind, size)],
            [helper.make_tensor_value_info(name, kind, [None] * len(size)) for name in outputs],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        content: bytes = model.SerializeToString()
        return content

    def _pair(self, size: tuple[int, ...], outputs: int, axis: int) -> tuple[str, str]:
        count = (outputs,) if self._per_channel else ()
        along = {"axis": axis} if self._per_channel else {}
        weights = self._random.integers(-self._limit, self._limit + 1, size, np.int8)
        middle: NDArray[Any] = np.zeros(count, np.int8)
        if self._weights is WeightType.UINT8:
            weights, middle = (weights.astype(np.int16) + 128).astype(np.uint8), np.full(count, 128, np.uint8)
        scales = np.full(count, _WEIGHT_SCALE, np.float32)
        names = [
            self._constant("w", weights),
            self._constant("w_scale", scales),
            self._constant("w_zero", middle),
        ]
        bias = self._random.integers(-1000, 1000, outputs, np.int32)
        bias_names = [
            self._constant("b", bias),
            self._constant("b_scale", (scales * np.float32(_SCALE)).astype(np.float32)),
            self._constant("b_zero", np.zeros(count, np.int32)),
        ]
        return (
            self.node("DequantizeLinear", names, **along),
            self.node("DequantizeLinear", bias_names, **({"axis": 0} if self._per_channel else {})),
        )

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        unique = f"{name}{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(value, unique))
        return unique
