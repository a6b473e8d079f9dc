"""Compile to onnxruntime's own format: what `compile.onnxruntime` ships, in the container of minimal builds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

from edgemill.artifact import size_of
from edgemill.compile import CompileSettings, onnxruntime
from edgemill.compile.foreign import plain_answers
from edgemill.compile.verify import compare, numbers_of, samples
from edgemill.data.dataset import Dataset
from edgemill.errors import ToolchainError
from edgemill.recipe import Scheme
from edgemill.runtimes.onnxruntime import OnnxRuntimeModel, session_options
from edgemill.runtimes.ort_format import MODEL, OPERATORS
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.targets.spec import ActivationType, Target

LEVEL = "ORT_CONVERT_ONNX_MODELS_TO_ORT_OPTIMIZATION_LEVEL"
"""Environment variable of the converter. The graph is optimized for the target before; its default, all, would
write the layout of this host's CPU."""


def run(settings: CompileSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compile one ONNX model for one target, and convert the result.

    Inputs:
        model: onnx, any number format.
        data: dataset; its calibration split is what the result is verified on.

    Outputs:
        model: ort, a folder with model.ort and required_operators_and_types.config, for
            `build.py --minimal_build --include_ops_by_config` of onnxruntime.

    Facts: those of `compile.onnxruntime`, `onnx_size_bytes`, and `operators` (lines of the configuration).

    Raises:
        ToolchainError: see `compile.onnxruntime`; the converter fails, or its file gives other answers than the
            ONNX model, of which every bit is compared (of half precision: within rounding).
    """
    made = onnxruntime.run(settings, inputs, context)
    compiled = made.files["model"].path
    folder = context.out / "ort"
    context.report(0.8, "converting to onnxruntime's format")
    convert(compiled, folder, settings.target)
    model = OnnxRuntimeModel(folder / MODEL, session_options(threads=1))
    x = samples(Dataset(inputs["data"].path), model.signature)
    before, after = plain_answers(compiled, x), model.predict(x)
    if settings.scheme is Scheme.FP16:
        # where the host lacks half-precision kernels, the two round at other places
        compare(before, after, numbers_of(settings.scheme), str(inputs["model"].path))
    elif not np.array_equal(before, after):
        raise ToolchainError(
            "onnxruntime's format does not give the answers of the ONNX model.",
            where=str(inputs["model"].path),
            expected="equal bits",
            got=f"differences up to {float(np.abs(before - after).max()):.3g}",
        )
    lines = (folder / OPERATORS).read_text(encoding="utf-8").splitlines()
    facts = {
        **made.facts,
        "onnx_size_bytes": size_of(compiled),
        "size_bytes": size_of(folder),
        "operators": [line for line in lines if line and not line.startswith("#")],
    }
    compiled.unlink()
    return Outputs({"model": OutputFile(folder, "ort", model.signature, facts)}, facts)


def convert(source: Path, folder: Path, target: Target) -> None:
    """Write `model.ort` and the configuration of a minimal build into a folder.

    Raises:
        ToolchainError: the converter fails.
    """
    signed = target.int8.activations is ActivationType.INT8
    before = os.environ.get(LEVEL)
    os.environ[LEVEL] = "basic"
    try:
        convert_onnx_models_to_ort(
            source,
            output_dir=folder,
            optimization_styles=[OptimizationStyle.Fixed],
            target_platform="arm" if signed else "amd64",
            enable_type_reduction=True,
        )
        (written,) = folder.glob("*.ort")
        (config,) = folder.glob("*.config")
        written.rename(folder / MODEL)
        config.rename(folder / OPERATORS)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ToolchainError(
            "onnxruntime cannot convert the model to its own format.",
            where=str(source),
            got=" ".join(str(error).split())[:300],
        ) from error
    finally:
        if before is None:
            del os.environ[LEVEL]
        else:
            os.environ[LEVEL] = before
