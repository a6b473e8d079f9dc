"""What TensorRT's ONNX parser and its explicit quantization take; a graph is checked before it is shipped.

Sources: NVIDIA, "Working with Quantized Types" (TensorRT 10.11: symmetric quantization, signed INT8; activations
per tensor, weights per tensor or per channel; pre-quantized weights need a DequantizeLinear before the product),
and onnx/onnx-tensorrt, docs/operators.md of 10.15 (operators; QuantizeLinear and DequantizeLinear: the zero point
must be zero, INT8, FP8, FP4 and INT4 only, so no INT32 biases; UINT8 only as input or output of the network).
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from edgemill.compile.onnx_graph import DEFAULT_DOMAINS, all_nodes, opset_of
from edgemill.compile.qdq_tensors import OUTPUT_AXIS, Quantized, Role, free_shapes, read_quantized
from edgemill.targets.spec import Target

OLDEST_OPSET = 9

_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout
    Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization GRU HardSigmoid HardSwish Hardmax
    Identity If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN
    LSTM LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
    NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear Range Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
    Resize ReverseSequence RNN RoiAlign Round Scan ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh
    Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK
    Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
"""Operators that the parser takes, without those that only its newest versions know."""


def violations(model: ModelProto, target: Target) -> list[str]:
    """Every rule that a graph breaks, one sentence each with the tensor or operator; empty where it keeps all.

    Raises:
        ToolchainError: a scale or zero point is not constant.
    """
    found = [f"the size of {text} is not fixed" for text in free_shapes(model)]
    opset, newest = opset_of(model), target.opset
    if opset < OLDEST_OPSET or (newest is not None and opset > newest):
        found.append(f"opset {opset} is not within {OLDEST_OPSET} and {newest}")
    unknown = {
        node.op_type if node.domain in DEFAULT_DOMAINS else f"{node.domain}:{node.op_type}"
        for node in all_nodes(model.graph)
        if node.domain not in DEFAULT_DOMAINS or node.op_type not in OPERATORS
    }
    found += [f"operator {name} is not supported" for name in sorted(unknown)]
    for tensor in read_quantized(model):
        found += _of_tensor(tensor)
    return found


def _of_tensor(tensor: Quantized) -> list[str]:
    found = []
    if tensor.role is Role.BIAS:
        return [f"{tensor.title} is quantized; biases stay in floating point"]
    if tensor.dtype != "int8":
        found.append(f"{tensor.title} is {tensor.dtype} and not int8")
    if tensor.zero.any():
        found.append(f"{tensor.title} has the zero point {_first(tensor.zero)} and not 0")
    if not (np.isfinite(tensor.scale).all() and (tensor.scale > 0).all()):
        found.append(f"{tensor.title} has the scale {_first(tensor.scale)}, which is not positive and finite")
    if tensor.per_channel and tensor.role is not Role.WEIGHT:
        found.append(f"{tensor.title} has a scale for every channel; only weights may")
    if tensor.per_channel and tensor.role is Role.WEIGHT:
        for node, index in tensor.users:
            axes = OUTPUT_AXIS.get(node.op_type, ()) if index == 1 else ()
            if tensor.axis not in axes and not (-1 in axes and tensor.axis == 1):
                found.append(f"{tensor.title} has scales along axis {tensor.axis}, not along the output channels")
    return found


def _first(values: np.typing.NDArray[np.generic]) -> str:
    return str(values.reshape(-1)[0].item())
