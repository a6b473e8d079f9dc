"""What every fp32 ONNX file of a run has in common: one float32 input, a free batch size, opset 17."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

from edgemill.artifact import Signature, TensorSpec
from edgemill.errors import ToolchainError

OPSET = 17
BATCH = "batch"


def signature_of(model: onnx.ModelProto) -> Signature:
    """Inputs (initializers excluded) and outputs of an ONNX model, in graph order."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return Signature(
        inputs=tuple(_spec(value) for value in model.graph.input if value.name not in stored),
        outputs=tuple(_spec(value) for value in model.graph.output),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape=shape)


def name_free_dimensions(model: onnx.ModelProto) -> None:
    """Call the free batch size `batch` everywhere, and drop shape notes that carry a converter's own names."""
    del model.graph.value_info[:]
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in (*model.graph.input, *model.graph.output):
        if value.name in stored:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = BATCH if axis == 0 else f"{value.name}_{axis}"


def unknown_operators(model: onnx.ModelProto) -> list[str]:
    """Operators (domain:type) of the main graph that the model's own opset does not define."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    missing = set()
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, opsets.get("", OPSET), ""):
            missing.add(node.op_type)
        elif node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            missing.add(f"{node.domain}:{node.op_type}")
    return sorted(missing)


def save(model: onnx.ModelProto, path: Path) -> Signature:
    """Check a model and write it as one file.

    Raises:
        ToolchainError: the graph is not valid ONNX, or holds operators outside the standard.
    """
    missing = unknown_operators(model)
    if missing:
        raise ToolchainError(
            "The graph has operators that are not standard ONNX.",
            where=str(path.name),
            expected=f"operators of opset {OPSET}",
            got=", ".join(missing),
            remedy="replace the layers that use them, or export the model to ONNX yourself and give that",
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ToolchainError("The ONNX graph is not valid.", where=path.name, got=str(error)[:2000]) from error
    onnx.save_model(model, str(path))
    return signature_of(model)


class OnnxFunction:
    """An ONNX file as a function of one float32 batch, on the CPU, single-threaded for repeatable sums.

    Raises:
        ToolchainError: onnxruntime cannot load the file.
    """

    def __init__(self, path: Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base but Exception
            raise ToolchainError(
                "onnxruntime cannot load the graph.", where=path.name, got=str(error)[:2000]
            ) from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """First output, float32, for x: float32 (N, *sample_shape).

        Raises:
            ToolchainError: the graph cannot be executed on this batch.
        """
        try:
            answer = self._session.run(None, {self._input: x})[0]
        except Exception as error:  # as above
            raise ToolchainError(
                "onnxruntime cannot run the graph.", where=f"batch of shape {x.shape}", got=str(error)[:2000]
            ) from error
        return np.asarray(answer, dtype=np.float32)


def ends_in_softmax(model: onnx.ModelProto) -> bool:
    """Whether the first output is a softmax, seen through operators that only rearrange values."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"):
        node = makers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"
