"""All repairs in their order, each measured before and after, and undone where it makes the answers worse."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import onnx

from edgemill.quantize.repair.adaround import ITERATIONS, adaround
from edgemill.quantize.repair.bias_correction import bias_correction
from edgemill.quantize.repair.equalization import clip_inputs, equalize
from edgemill.quantize.repair.mse_scales import mse_scales
from edgemill.quantize.repair.probe import Samples, highest, sqnr_db
from edgemill.quantize.repair.report import Report
from edgemill.quantize.repair.smoothquant import smooth, smoothed_inputs
from edgemill.recipe import Repair

FLOAT = (Repair.EQUALIZATION, Repair.SMOOTHQUANT)
"""Repairs of the float graph, in their order; they come before calibration."""
QUANTIZED = (Repair.MSE_SCALES, Repair.ADAROUND, Repair.BIAS_CORRECTION)
"""Repairs of the QDQ graph, in their order."""

Progress = Callable[[float | None, str], None]


def repair_float(
    prepared: Path,
    repairs: Collection[Repair],
    samples: Samples,
    quantize: Callable[[Path], onnx.ModelProto],
    report: Progress,
) -> list[dict[str, Any]]:
    """Apply the repairs that act on a float graph, in the file.

    Args:
        prepared: fp32 ONNX, prepared for quantization; is changed.
        repairs: those wanted; others than `FLOAT` are not looked at.
        samples: calibration samples.
        quantize: calibrates and quantizes a float graph; called to measure what a repair gains.
        report: progress.

    Returns:
        one record a repair: that of its `Report`, and `sqnr_before_db`, `sqnr_after_db` (the quantized outputs against
        those of the graph as it came, on the samples; None where there is no difference, or where nothing was
        changed), and `kept`: False where nothing was changed, or where the change made it worse and was undone.
    """
    wanted = [repair for repair in FLOAT if repair in repairs]
    if not wanted:
        return []
    original = onnx.load(str(prepared))
    before: list[float | None] = []
    made = []
    for repair in wanted:
        report(None, f"repair {repair}")
        model = onnx.load(str(prepared))
        if repair is Repair.EQUALIZATION:
            done = equalize(model, highest(model, clip_inputs(model), samples))
        else:
            done = smooth(model, highest(model, smoothed_inputs(model), samples))
        if not done.changed:
            made.append(_record(done, None, None, measured=False))
            continue
        if not before:
            before.append(sqnr_db(original, quantize(prepared), samples))
        candidate = prepared.with_name(f"{prepared.stem}-{repair}.onnx")
        onnx.save(model, str(candidate))
        after = sqnr_db(original, quantize(candidate), samples)
        record = _record(done, before[-1], after)
        if record["kept"]:
            candidate.replace(prepared)
            before.append(after)
        else:
            candidate.unlink()
        made.append(record)
    return made


def repair_quantized(
    model: onnx.ModelProto,
    reference: onnx.ModelProto,
    repairs: Collection[Repair],
    samples: Samples,
    reduce_range: bool,
    seed: int,
    report: Progress,
    iterations: int = ITERATIONS,
) -> list[dict[str, Any]]:
    """Apply the repairs that act on a QDQ graph, in place.

    Args:
        model: made by onnxruntime's quantizer; weights int8 or uint8.
        reference: the float graph that was quantized, with the repairs of the float graph.
        repairs: those wanted; others than `QUANTIZED` are not looked at.
        samples: calibration samples.
        reduce_range: whether weights stay within -64..64.
        seed: of AdaRound.
        report: progress.
        iterations: updates of AdaRound for every layer.

    Returns:
        as `repair_float`.
    """
    made: list[dict[str, Any]] = []
    wanted = [repair for repair in QUANTIZED if repair in repairs]
    if not wanted:
        return made
    before = sqnr_db(reference, model, samples)
    for repair in wanted:
        report(None, f"repair {repair}")
        kept = model.SerializeToString()
        if repair is Repair.MSE_SCALES:
            done = mse_scales(model, reference, reduce_range)
        elif repair is Repair.ADAROUND:
            done = adaround(model, reference, samples, reduce_range, seed, iterations, report)
        else:
            done = bias_correction(model, reference, samples, reduce_range, report)
        if not done.changed:
            made.append(_record(done, None, None, measured=False))
            continue
        after = sqnr_db(reference, model, samples)
        record = _record(done, before, after)
        if record["kept"]:
            before = after
        else:
            model.ParseFromString(kept)
        made.append(record)
    return made


def _record(done: Report, before: float | None, after: float | None, measured: bool = True) -> dict[str, Any]:
    # No ratio means no difference at all.
    kept = measured and (after is None or (before is not None and after >= before))
    return done.record() | {
        "kept": kept,
        "sqnr_before_db": before,
        "sqnr_after_db": after,
    }
