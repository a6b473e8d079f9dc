"""Step `quantize.fp16`: float16 inside, float32 at input and output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, QualityGateError, ToolchainError
from edgemill.quantize import Fp16Settings
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.runtimes.onnxruntime import session_options
from edgemill.step import InputFile, OutputFile, Outputs, StepContext

_HIGHEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).smallest_subnormal)
_SHOWN = 10


def run(settings: Fp16Settings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Convert an ONNX graph to float16.

    Args:
        settings: batch size of the check.
        inputs: `onnx` (fp32); with `data`, activations on the calibration split are checked too.
        context: folders, progress.

    Returns:
        file `onnx`; facts `largest_weight`, `largest_activation` (absolute values; the latter None
        without data), `vanishing_weights` (by tensor: weights that become 0 or the smallest float16).

    Raises:
        QualityGateError: a weight or an activation does not fit into float16; with its name.
        ToolchainError: the conversion fails.
    """
    source = inputs["onnx"]
    model = onnx.load(str(source.path))
    largest, vanishing = check_weights(model)
    highest = None
    if "data" in inputs:
        highest = check_activations(model, Dataset(inputs["data"].path), settings.batch_size, context)
    target = context.out / "model.onnx"
    context.report(0.9, "converting")
    try:
        # It changes the model it is given.
        converted = convert_float_to_float16(onnx.load(str(source.path)), keep_io_types=True)
        OnnxModel.graph_topological_sort(converted.graph)  # it leaves the Cast of the input behind its reader
        onnx.save_model(converted, str(target))
    except Exception as error:  # onnxruntime's converter raises anything
        raise ToolchainError("The float16 conversion failed.", where=source.path.name, got=str(error)[:2000]) from error
    facts: dict[str, Any] = {
        "largest_weight": largest,
        "largest_activation": highest,
        "vanishing_weights": vanishing,
    }
    return Outputs({"onnx": OutputFile(target, "onnx", ONNXRUNTIME.load(target).signature)}, facts)


def check_weights(model: onnx.ModelProto) -> tuple[float, dict[str, int]]:
    """Largest absolute weight, and how many weights of each tensor are too small for float16.

    Raises:
        QualityGateError: a weight is beyond 65504.
    """
    largest, beyond, vanishing = 0.0, {}, {}
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values: NDArray[Any] = np.abs(numpy_helper.to_array(tensor))
        if not values.size:
            continue
        top = float(values.max())
        largest = max(largest, top)
        if not top <= _HIGHEST:
            beyond[tensor.name] = top
        tiny = int(((values > 0) & (values < _SMALLEST)).sum())
        if tiny:
            vanishing[tensor.name] = tiny
    _refuse(beyond, "weights")
    return largest, vanishing


def check_activations(model: onnx.ModelProto, data: Dataset, batch_size: int, context: StepContext) -> float:
    """Largest absolute value of any float tensor of the graph on the calibration split.

    Raises:
        QualityGateError: one is beyond 65504 (the fp32 graph's values; rounding may add to them).
        DataError: the calibration split is empty.
    """
    size = data.sizes[SplitName.CALIBRATION]
    if size == 0:
        raise DataError(
            "The calibration split is empty.", where="data.split.calibration", remedy="give it some samples"
        )
    exposed = onnx.shape_inference.infer_shapes(model)
    known = {value.name for value in exposed.graph.output}
    floats = [v.name for v in exposed.graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]
    exposed.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in floats if name not in known
    )
    session = ort.InferenceSession(exposed.SerializeToString(), session_options(1), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs() if item.type == "tensor(float)"]
    entry = session.get_inputs()[0].name
    highest: dict[str, float] = {}
    for start in range(0, size, batch_size):
        x = data.features(SplitName.CALIBRATION, start, min(start + batch_size, size))
        for name, value in zip(names, session.run(names, {entry: x}), strict=True):
            if value.size:
                highest[name] = max(highest.get(name, 0.0), float(np.abs(value).max()))
        context.report(0.8 * (start + len(x)) / size, f"checking sample {start + len(x)} of {size}")
    _refuse({name: value for name, value in highest.items() if not value <= _HIGHEST}, "activations")
    return max(highest.values(), default=0.0)


def _refuse(beyond: dict[str, float], what: str) -> None:
    if beyond:
        shown = ", ".join(f"{name} ({value:.4g})" for name, value in list(beyond.items())[:_SHOWN])
        raise QualityGateError(
            f"Some {what} do not fit into float16.",
            where="scheme fp16",
            expected=f"absolute values up to {_HIGHEST:.0f}",
            got=f"{len(beyond)}: {shown}",
            remedy="leave fp16 out for this model; int8_static scales such tensors",
        )
