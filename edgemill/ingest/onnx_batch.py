"""A free batch size for an ONNX graph that was exported with a fixed one."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from edgemill.errors import CheckpointError

_TOLERANCE = 1e-5


def free_batch(model: onnx.ModelProto, fixed: int | None, where: str) -> onnx.ModelProto:
    """The same graph for any number of samples.

    Reshapes to a constant shape that begins with the old batch size are the usual obstacle; they are
    rewritten to keep (0) or to infer (-1) that axis, and the result is tried: two samples at once
    must answer like one after the other.

    Args:
        model: one float32 input, batch first.
        fixed: its batch size, None if it is free already.
        where: for messages.

    Raises:
        CheckpointError: the graph only works with the batch size it was exported with.
    """
    if fixed is None:
        return model
    for keep in (None, 0, -1):
        candidate = onnx.ModelProto()
        candidate.CopyFrom(model)
        if keep is not None:
            _rewrite_reshapes(candidate, fixed, keep)
        _clear_batch(candidate)
        if _works(candidate, fixed):
            return candidate
    raise CheckpointError(
        "The model works with one batch size only.",
        where=where,
        expected="a free batch size",
        got=f"batch size {fixed}, and the graph relies on it",
        remedy="export it with a dynamic batch axis, e.g. dynamic_shapes={'x': {0: 'batch'}} in torch.onnx.export",
    )


def _clear_batch(model: onnx.ModelProto) -> None:
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims:
            dims[0].Clear()
            dims[0].dim_param = "batch"


def _rewrite_reshapes(model: onnx.ModelProto, fixed: int, keep: int) -> None:
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for number, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        shape = numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape.size == 0 or shape[0] != fixed or (keep == -1 and -1 in shape):
            continue
        shape[0] = keep
        name = f"{node.input[1]}_free_{number}"
        model.graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name


def _works(model: onnx.ModelProto, fixed: int) -> bool:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        shape = [dim if isinstance(dim, int) else 8 for dim in source.shape[1:]]
        # Small positive numbers are also valid indices once they are cut to integers.
        x = np.random.default_rng(0).random((2 * fixed, *shape), dtype=np.float32) * 2
        both = session.run(None, {source.name: x})[0]
        halves = np.concatenate([session.run(None, {source.name: part})[0] for part in (x[:fixed], x[fixed:])])
    except Exception:  # noqa: BLE001  (whatever it is, this graph does not work with another batch size)
        return False
    return both.shape == halves.shape and bool(np.allclose(both, halves, rtol=_TOLERANCE, atol=_TOLERANCE))
