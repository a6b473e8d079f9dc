"""ONNX files, made to be what every stage expects: one file, fp32, opset 17, one float32 input, free batch size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemill.artifact import Signature
from edgemill.errors import CheckpointError
from edgemill.ingest.companions import require_inside
from edgemill.ingest.detect import Format, onnx_files
from edgemill.ingest.graph import OPSET, name_free_dimensions, save, unknown_operators
from edgemill.ingest.loaded import Loaded, Unbridged
from edgemill.ingest.onnx_batch import free_batch
from edgemill.ingest.onnx_float import to_float32, with_float_input
from edgemill.ingest.safety import require_finite
from edgemill.ingest.wire import TruncatedError, external_locations

_REMEDY = "export it again, as a float model with opset 17 and a free batch size"
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "BatchNormalization"}


def load_onnx(path: Path, work: Path) -> Loaded:
    """Load an ONNX file, or the one in a folder, with its external data.

    Args:
        path: file or folder.
        work: folder for the original as a single file.

    Raises:
        CheckpointError: it is damaged, names data outside its folder, is quantized already, uses
            operators outside the standard, or has not exactly one input.
    """
    file = onnx_files(path)[0] if path.is_dir() else path
    model = _read(file)
    _require_standard(model, file.name)
    source = work / "original.onnx"
    onnx.save_model(model, str(source))
    return from_onnx(model, open_session(source, file.name), Format.ONNX, file.name)


def from_onnx(model: onnx.ModelProto, session: ort.InferenceSession, form: Format, where: str) -> Loaded:
    """An ONNX graph as a loaded checkpoint, for inference only.

    Args:
        model: complete, with all its weights; changed in place.
        session: the model as it was given, which answers as the original.
        form: what it was made from.
        where: for messages.

    Raises:
        CheckpointError: it cannot be brought into the form that every stage expects.
    """
    require_finite(_suspects(model), where)
    _require_one_input(model, where)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    model = _to_opset(model, where)
    to_float32(model)
    cast = with_float_input(model)
    signature = session.get_inputs()[0]
    dtype = _DTYPES.get(signature.type, np.float32)
    fixed = signature.shape[0] if isinstance(signature.shape[0], int) else None

    def original(x: NDArray[np.float32]) -> NDArray[np.float32]:
        step = fixed or len(x) or 1
        parts = [session.run(None, {signature.name: x[i : i + step].astype(dtype)})[0] for i in range(0, len(x), step)]
        return np.concatenate(parts).astype(np.float32)

    model = free_batch(model, fixed, where)
    shape = tuple(dim if isinstance(dim, int) else None for dim in signature.shape[1:])

    def write(target: Path, sample_shape: tuple[int, ...] | None) -> Signature:
        if sample_shape is not None:
            _fix(model, sample_shape)
        name_free_dimensions(model)
        return save(model, target)

    reason = "an ONNX graph holds no trainable model"
    return Loaded(
        form=form,
        original=original,
        input_shape=shape,
        write_onnx=write,
        unbridged=[Unbridged(layer=where, kind=str(form), reason=reason)],
        vocabulary=_vocabulary(model) if cast else None,
    )


_DTYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}  # fmt: skip


def _read(file: Path) -> onnx.ModelProto:
    try:
        for location in external_locations(file):
            require_inside(file, location)
        return onnx.load(str(file), load_external_data=True)
    except (CheckpointError, MemoryError):
        raise
    except Exception as error:  # protobuf and onnx raise anything on damaged files
        kind = "truncated" if isinstance(error, TruncatedError) else "damaged"
        raise CheckpointError(
            f"The ONNX file is {kind}.",
            where=file.name,
            expected="a complete ONNX model",
            got=f"{type(error).__name__}: {error}"[:500],
            remedy="copy or export it again",
        ) from error


def _require_standard(model: onnx.ModelProto, where: str) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises several kinds
        raise CheckpointError(
            "The ONNX graph is not valid.", where=where, got=str(error)[:1000], remedy="export it again"
        ) from error
    quantized = sorted(
        {node.op_type for node in model.graph.node if node.op_type in _QUANTIZED or "QLinear" in node.op_type}
    )
    if quantized:
        raise CheckpointError(
            "The model is quantized already.",
            where=where,
            expected="a float model",
            got=", ".join(quantized),
            remedy="give the checkpoint from which it was quantized",
        )
    missing = [] if model.functions else unknown_operators(model)
    if missing:
        raise CheckpointError(
            "The model has operators outside the ONNX standard.",
            where=where,
            expected="operators of the domain ai.onnx",
            got=", ".join(missing),
            remedy="export it without runtime-specific optimization",
        )


def open_session(path: Path, where: str) -> ort.InferenceSession:
    """A checkpoint in onnxruntime, on the CPU, single-threaded.

    Raises:
        CheckpointError: onnxruntime cannot load it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base but Exception
        raise CheckpointError(
            "onnxruntime cannot load the checkpoint.", where=where, got=str(error)[:1000], remedy=_REMEDY
        ) from error


def _require_one_input(model: onnx.ModelProto, where: str) -> None:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type") or not inputs[0].type.tensor_type.shape.dim:
        raise CheckpointError(
            "The model does not have exactly one input tensor with a batch axis.",
            where=where,
            expected="one input, batch first",
            got=", ".join(value.name for value in inputs) or "no input",
            remedy="export it with a single input",
        )
    for name in stored & {value.name for value in model.graph.input}:  # weights listed as inputs, as IR 3 wanted it
        model.graph.input.remove(next(value for value in model.graph.input if value.name == name))


def _to_opset(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if version != OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
            onnx.checker.check_model(model)
        except Exception as error:  # the converter raises RuntimeError with a C++ text, the checker its own
            raise CheckpointError(
                f"The graph cannot be brought to opset {OPSET}.",
                where=where,
                expected=f"opset {OPSET}",
                got=f"opset {version}: {error}"[:500],
                remedy=_REMEDY,
            ) from error
    model.ir_version = 8  # the one of opset 17
    return model


def _suspects(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Weights to be checked for NaN. Infinity is legal in masks and clipping bounds, NaN nowhere."""
    weights = {name for node in model.graph.node if node.op_type in _WEIGHTED for name in node.input}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if not np.issubdtype(values.dtype, np.floating):
            continue
        yield (
            tensor.name,
            values if tensor.name in weights or values.ndim == 1 else np.where(np.isinf(values), 0, values),
        )


def _vocabulary(model: onnx.ModelProto) -> int:
    """Rows of the smallest table that is looked into, so that random integers are valid indices."""
    sizes = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) > 1}
    tables = [sizes[node.input[0]] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in sizes]
    return int(min(tables, default=2))


def _fix(model: onnx.ModelProto, sample_shape: tuple[int, ...]) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(list(dims)[1:], sample_shape, strict=True):
        dim.dim_value = size
    for value in model.graph.output:
        for dim in list(value.type.tensor_type.shape.dim)[1:]:
            dim.ClearField("value")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value, better in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(better)
