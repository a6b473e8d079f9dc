"""Compile for Rockchip's NPUs with RKNN, which quantizes the fp32 model itself or takes its QDQ pairs over.

RKNN leaves a few bytes of its file uninitialized, so two builds of one model can differ in them; their answers
do not, and the simulator answers for a build of the same inputs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgemill.artifact import Signature, size_of
from edgemill.compile import CompileSettings
from edgemill.compile.foreign import plain_answers
from edgemill.compile.onnx_graph import op_counts, read_onnx
from edgemill.compile.rknn_routes import OWN
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import InvariantError
from edgemill.evidence import DeviceFigures
from edgemill.recipe import Scheme
from edgemill.runtimes.rknn import MODEL, RUNTIME, SAMPLES, SETTINGS, RknnModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import Target

CALIBRATION = 128
"""Most samples for RKNN's own quantization; it reads them one by one."""
LEVEL, LEVEL_OF_PAIRS = 3, 2
"""RKNN's optimization_level; it says itself of models with QDQ pairs that 3 "will affect the accuracy"."""


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Build one ONNX model for one of Rockchip's NPUs.

    Inputs:
        model: onnx; fp32 for fp16 and int8_static, with QDQ pairs otherwise.
        data: dataset; its calibration split quantizes, and is what the result is compared on.

    Outputs:
        model: rknn, one file.
        executable: rknn-source, of which the simulator builds what it answers for.

    Facts: `op_counts` of the source, `quantized_by` (rknn, or edgemill where the pairs are taken over),
    `calibration_samples`, `runtime_version`, `size_bytes`, `device`, and of the comparison with the source in
    onnxruntime `max_difference`, `mean_difference`, `agreement`, `compared`.

    Raises:
        ToolchainError: RKNN cannot build the model, or the simulator gives other answers.
    """
    source, target = inputs["model"].path, settings.target
    data = Dataset(inputs["data"].path)
    folder = context.out / "source"
    folder.mkdir()
    shutil.copyfile(source, folder / MODEL)
    used = _calibrate(folder, data) if settings.scheme is Scheme.INT8_STATIC else 0
    level = LEVEL if settings.scheme in OWN else LEVEL_OF_PAIRS
    how = {"platform": _platform(target), "optimization_level": level}
    (folder / SETTINGS).write_text(json.dumps(how) + "\n", encoding="utf-8")
    context.report(0.1, f"building for {_platform(target)}")
    built = RknnModel(folder)
    path = context.out / "model.rknn"
    built.export(path)
    context.report(0.6, "comparing with the model it was made from, in the simulator")
    x = samples(data, built.signature)
    device = DeviceFigures(
        source=f"simulated:{target.execution.name}",
        flash_bytes=size_of(path),
        notes=("flash: the RKNN file", "the simulator tells no times"),
    )
    facts = {
        "target": target.name,
        "op_counts": op_counts(read_onnx(source)),
        "quantized_by": "rknn" if settings.scheme in OWN else "edgemill",
        "calibration_samples": used,
        "runtime_version": RUNTIME.version(),
        "size_bytes": size_of(path),
        "device": device.model_dump(mode="json"),
    } | compare(plain_answers(source, x), built.predict(x), numbers_of(settings.scheme), str(source))
    signature: Signature = built.signature
    return Outputs(
        {
            "model": OutputFile(path, "rknn", signature, facts),
            "executable": OutputFile(folder, "rknn-source", signature),
        },
        facts,
    )


def _calibrate(folder: Path, data: Dataset) -> int:
    chosen = data.features(SplitName.CALIBRATION, 0, CALIBRATION)
    np.save(folder / SAMPLES, chosen)
    return len(chosen)


def _platform(target: Target) -> str:
    if "platform" not in target.options:
        raise InvariantError(
            "The target does not say which of Rockchip's chips it is.",
            where=f"target {target.name}, options.platform",
            expected="e.g. rk3588",
        )
    return target.options["platform"]
