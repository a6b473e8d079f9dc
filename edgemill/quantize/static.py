"""Step `quantize.static`: fp32 ONNX to int8 in QDQ form with onnxruntime, ranges from the calibration split."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process

from edgemill.artifact import Signature
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.quantize import StaticSettings
from edgemill.quantize.calibrate import as_tensors_data, find_ranges, plan_calibration
from edgemill.quantize.calibrators.extremes import Range
from edgemill.quantize.calibrators.memory import Plan
from edgemill.quantize.kernels import optimized_kernels
from edgemill.quantize.onnx_graph import MOVES
from edgemill.quantize.repair.probe import Samples
from edgemill.quantize.repair.sequence import repair_float, repair_quantized
from edgemill.quantize.unsigned_weights import to_unsigned
from edgemill.recipe import Granularity
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import ActivationType, WeightType

_TYPES = {ActivationType.UINT8: QuantType.QUInt8, ActivationType.INT8: QuantType.QInt8}


def run(settings: StaticSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Quantize an ONNX graph.

    Args:
        settings: the target's arithmetic, and how ranges are found.
        inputs: `onnx` (fp32), `data`.
        context: folders, progress.

    Returns:
        file `onnx`; facts `quantized_nodes` (by operator), `float_nodes` (name: reason), `ranges`
        (count, widest, narrowest), `calibration` (how samples went through the graph, estimated memory),
        `kernels` of the optimized graph, `warnings`; with `settings.repair`, `repairs` (see
        `edgemill.quantize.repair.sequence`).

    Raises:
        DataError: the calibration split is empty or makes an activation infinite.
        ToolchainError: onnxruntime fails.
    """
    source = inputs["onnx"]
    data = Dataset(inputs["data"].path)
    target = context.out / "model.onnx"
    with tempfile.TemporaryDirectory(dir=context.out) as name:
        folder = Path(name)
        prepared = folder / "prepared.onnx"
        prepare(source.path, prepared)
        method, memory = settings.calibration, settings.calibration_memory_bytes
        how = plan_calibration(prepared, data, method, settings.batch_size, memory)
        repairs = repair_before(prepared, data, how, settings, context.report)
        ranges = find_ranges(prepared, data, method, settings.percentile, how, context.report)
        context.report(0.85, "quantizing weights")
        signature = quantize_graph(prepared, target, ranges, settings)
        repairs += repair_after(target, prepared, data, how, settings, context)
    context.report(0.95, "reading the optimized graph")
    facts = describe(target, ranges, how)
    if settings.repair:
        facts["repairs"] = repairs
        facts["warnings"] += unhelpful(repairs)
    return Outputs({"onnx": OutputFile(target, "onnx", signature)}, facts)


def repair_before(
    prepared: Path, data: Dataset, how: Plan, settings: StaticSettings, report: Callable[[float | None, str], None]
) -> list[dict[str, Any]]:
    """Apply the repairs of the float graph that the settings name, in the file.

    Args:
        prepared: from `prepare`; is changed.
        data: the calibration split is used.
        how: from `plan_calibration`.
        settings: the repairs, and how is quantized when their gain is measured.
        report: progress.

    Returns:
        a record for each: see `repair_float`.

    Raises:
        DataError: the calibration split makes an activation infinite.
        ToolchainError: onnxruntime fails.
    """
    if not settings.repair:
        return []

    def quantized(graph: Path) -> onnx.ModelProto:
        with tempfile.TemporaryDirectory(dir=prepared.parent) as name:
            file = Path(name) / "model.onnx"
            ranges = find_ranges(
                graph, data, settings.calibration, settings.percentile, how, lambda fraction, text: None
            )
            quantize_graph(graph, file, ranges, settings)
            return onnx.load(str(file))

    return repair_float(prepared, settings.repair, Samples(data, how.batch_size), quantized, report)


def repair_after(
    target: Path, prepared: Path, data: Dataset, how: Plan, settings: StaticSettings, context: StepContext
) -> list[dict[str, Any]]:
    """Apply the repairs of the QDQ graph that the settings name, in the file.

    Args:
        target: from `quantize_graph`; is changed.
        prepared: the float graph that was quantized.
        data: the calibration split is used.
        how: from `plan_calibration`.
        settings: the repairs, and the range of weights.
        context: seed, progress.

    Returns:
        a record for each: see `repair_quantized`.

    Raises:
        ToolchainError: onnxruntime fails.
    """
    if not settings.repair:
        return []
    model = onnx.load(str(target))
    samples, narrow = Samples(data, how.batch_size), settings.int8.reduce_range
    made = repair_quantized(
        model, onnx.load(str(prepared)), settings.repair, samples, narrow, context.seed, context.report
    )
    onnx.save(model, str(target))
    return made


def unhelpful(repairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for every repair that changed nothing in the end."""
    return [
        f"repair {record['repair']} "
        + ("was undone, it made the answers worse" if record["changed"] else "found nothing to do")
        for record in repairs
        if not record["kept"]
    ]


def describe(target: Path, ranges: dict[str, Range], how: Plan) -> dict[str, Any]:
    """Facts of a quantized file: see `run`."""
    kernels = optimized_kernels(target)
    quantized, left = survey(onnx.load(str(target)), kernels.unfused)
    warnings = [f"{node} runs on a float kernel" for node in kernels.unfused]
    if not how.fits:
        warnings.append(f"calibration needs more memory than it was given: about {how.estimate_bytes} bytes")
    return {
        "quantized_nodes": dict(sorted(quantized.items())),
        "float_nodes": left,
        "ranges": _summary(ranges),
        "calibration": how.record(),
        "kernels": kernels.record(),
        "warnings": warnings,
    }


def prepare(source: Path, target: Path) -> None:
    """Infer shapes and fuse what can be fused before quantization, as onnxruntime wants it.

    Raises:
        ToolchainError: onnxruntime fails.
    """
    try:
        # Symbolic shape inference needs sympy; ONNX's own is enough for one free dimension.
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ToolchainError(
            "onnxruntime cannot prepare the model for quantization.", where=source.name, got=str(error)[:2000]
        ) from error


def quantize_graph(
    prepared: Path,
    target: Path,
    ranges: dict[str, Range],
    settings: StaticSettings,
    only: Sequence[str] | None = None,
    leave: Sequence[str] = (),
) -> Signature:
    """Write the QDQ form of a prepared graph.

    Args:
        prepared: from `prepare`; is not changed.
        target: file to write.
        ranges: (lowest, highest) of every activation.
        settings: types and granularity.
        only: names of the nodes that become int8; None for all that can.
        leave: names of nodes that stay float.

    Returns:
        signature of the file as onnxruntime loads it.

    Raises:
        ToolchainError: onnxruntime fails.
    """
    per_channel = settings.granularity is Granularity.PER_CHANNEL and settings.int8.per_channel
    try:
        # The second half of onnxruntime.quantization.quantize_static, with ranges that were looked at.
        quantizer = QDQQuantizer(
            load_model_with_shape_infer(prepared),
            per_channel,
            settings.int8.reduce_range,
            QuantType.QInt8,
            _TYPES[settings.int8.activations],
            as_tensors_data(ranges),
            list(only or ()),
            list(leave),
            sorted({*QLinearOpsRegistry, *QDQRegistry}),
            {},
        )
        quantizer.quantize_model()
        if settings.int8.weights is WeightType.UINT8:
            to_unsigned(quantizer.model.model)
        quantizer.model.save_model_to_file(str(target), False)
    except Exception as error:  # onnxruntime raises a dozen unrelated classes
        raise ToolchainError(
            "onnxruntime cannot quantize the model.", where=target.name, got=str(error)[:2000]
        ) from error
    return ONNXRUNTIME.load(target).signature


def survey(model: onnx.ModelProto, unfused: Sequence[str] = ()) -> tuple[Counter[str], dict[str, str]]:
    """Which nodes of a QDQ graph compute on quantized values.

    Args:
        model: with QuantizeLinear / DequantizeLinear pairs.
        unfused: `TYPE NAME` of nodes that onnxruntime runs as float although they are quantized.

    Returns:
        number of quantized nodes by operator, and for each node that stays float the reason.
    """
    real = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    quantized: Counter[str] = Counter()
    left: dict[str, str] = {
        name.split(" ", 1)[1]: "onnxruntime has no fused 8-bit form of this place" for name in unfused
    }
    known = {*QLinearOpsRegistry, *QDQRegistry}
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} or node.name in left:
            continue
        if node.input and node.input[0] in real:
            quantized[node.op_type] += 1
        elif node.op_type in MOVES:
            continue
        elif node.op_type not in known:
            left[node.name] = f"onnxruntime has no quantizer for {node.op_type}"
        else:
            left[node.name] = "its input is not quantized"
    return quantized, left


def _summary(ranges: dict[str, Range]) -> dict[str, Any]:
    if not ranges:
        return {"tensors": 0}
    width = {name: high - low for name, (low, high) in ranges.items()}
    widest, narrowest = max(width, key=lambda name: width[name]), min(width, key=lambda name: width[name])
    return {
        "tensors": len(ranges),
        "widest": {"tensor": widest, "range": list(ranges[widest])},
        "narrowest": {"tensor": narrowest, "range": list(ranges[narrowest])},
        "median_width": float(np.median(list(width.values()))),
    }
