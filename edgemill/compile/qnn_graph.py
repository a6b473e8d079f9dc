"""Rewrite QDQ graphs by QNN's rules: fixed shapes, and one scale for the weights of a MatMul."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper

from edgemill.compile.qdq_tensors import (
    Quantized,
    Role,
    add_constant,
    constants_of,
    drop_unused,
    read_quantized,
    with_batch,
)


def adapt(source: ModelProto, where: str) -> ModelProto:
    """A copy for one sample at a time that keeps QNN's rules, see `qnn_rules`.

    Raises:
        ToolchainError: its shapes cannot be fixed, or a scale is not constant.
    """
    model = ModelProto()
    model.CopyFrom(source)
    for tensor in read_quantized(model):
        if tensor.role is Role.WEIGHT and tensor.per_channel and multiplies(tensor):
            _to_per_tensor(model, tensor)
    drop_unused(model)
    return with_batch(model, 1, where)


def multiplies(tensor: Quantized) -> bool:
    """Whether a MatMul reads the tensor: QNN has no scales per channel there (onnxruntime, quant_config.py)."""
    return any(node.op_type == "MatMul" for node, _ in tensor.users)


def _to_per_tensor(model: ModelProto, tensor: Quantized) -> None:
    stored = numpy_helper.to_array(constants_of(model.graph)[tensor.node.input[0]]).astype(np.float64)
    shape = [1] * stored.ndim
    shape[tensor.axis] = -1
    real = (stored - tensor.zero.reshape(shape)) * tensor.scale.astype(np.float64).reshape(shape)
    scale = np.float32(max(float(np.abs(real).max()) / 127, float(np.finfo(np.float32).tiny)))
    base = tensor.node.input[0]
    names = [
        add_constant(model, f"{base}_per_tensor", np.clip(np.rint(real / scale), -127, 127).astype(np.int8)),
        add_constant(model, f"{base}_per_tensor_scale", np.array(scale, np.float32)),
        add_constant(model, f"{base}_per_tensor_zero", np.array(0, np.int8)),
    ]
    del tensor.node.input[:]
    tensor.node.input.extend(names)
    kept = [attribute for attribute in tensor.node.attribute if attribute.name != "axis"]
    del tensor.node.attribute[:]
    tensor.node.attribute.extend(kept)
