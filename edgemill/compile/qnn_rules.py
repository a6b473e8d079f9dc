"""What QNN's execution provider takes on the HTP, Qualcomm's NPU; a graph is checked before it is shipped.

Sources: onnxruntime, "QNN Execution Provider" (fixed shapes; QDQ models with uint8 or uint16 activations), and
onnxruntime.quantization.execution_providers.qnn.quant_config of 1.32 (`get_qnn_qdq_config`: weights uint8, or int8
and symmetric; per channel not for MatMul; smallest real range 0.0001).
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto

from edgemill.compile.onnx_graph import DEFAULT_DOMAINS, all_nodes
from edgemill.compile.qdq_tensors import Quantized, Role, free_shapes, read_quantized
from edgemill.compile.qnn_graph import multiplies

MINIMUM_RANGE = 0.0001
"""Of a quantized activation in real numbers (`MinimumRealRange`)."""
_STEPS = {"uint8": 255, "uint16": 65535}


def violations(model: ModelProto) -> list[str]:
    """Every rule that a graph breaks, one sentence each with the tensor or operator; empty where it keeps all.

    Raises:
        ToolchainError: a scale or zero point is not constant.
    """
    found = [f"the size of {text} is not fixed" for text in free_shapes(model)]
    foreign = {f"{n.domain}:{n.op_type}" for n in all_nodes(model.graph) if n.domain not in DEFAULT_DOMAINS}
    found += [f"operator {name} is not of ONNX" for name in sorted(foreign)]
    for tensor in read_quantized(model):
        found += _of_weight(tensor) if tensor.role is Role.WEIGHT else _of_tensor(tensor)
    return found


def _of_weight(tensor: Quantized) -> list[str]:
    found = []
    if tensor.dtype not in ("int8", "uint8"):
        found.append(f"{tensor.title} is {tensor.dtype}, neither int8 nor uint8")
    if tensor.dtype == "int8" and tensor.zero.any():
        found.append(f"{tensor.title} is int8 and has a zero point other than 0")
    if tensor.per_channel and tensor.dtype != "int8":
        found.append(f"{tensor.title} has a scale for every channel and is not int8")
    if tensor.per_channel and multiplies(tensor):
        found.append(f"{tensor.title} of a MatMul has a scale for every channel")
    return found


def _of_tensor(tensor: Quantized) -> list[str]:
    if tensor.role is Role.BIAS:
        right = tensor.dtype == "int32" and not tensor.zero.any()
        return [] if right else [f"{tensor.title} is not int32 with the zero point 0"]
    if tensor.dtype not in _STEPS:
        return [f"{tensor.title} is {tensor.dtype}, neither uint8 nor uint16"]
    found = []
    if tensor.per_channel:
        found.append(f"{tensor.title} has a scale for every channel; only weights may")
    span = float(np.min(tensor.scale)) * _STEPS[tensor.dtype]
    if not span >= MINIMUM_RANGE * (1 - 1e-6):
        found.append(f"{tensor.title} has the range {span:.3g}, less than {MINIMUM_RANGE}")
    return found
