"""Step `quantize.litert`: a Keras model or SavedModel to a .tflite file in fp32, fp16 or int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError, DataError, InvariantError
from edgemill.quantize import LitertScheme, LitertSettings
from edgemill.quantize.tflite import convert, convert_keras, describe, int8_io
from edgemill.recipe import Granularity
from edgemill.runtimes.litert import RUNTIME as LITERT
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras, tf


def run(settings: LitertSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Convert a model to LiteRT.

    int8_static calibrates with the smallest and largest value of every activation (the only way the
    converter knows) and has int8 input and output; their scale and zero point stand in the file.

    Args:
        settings: scheme, granularity of int8 weights.
        inputs: `keras` or `saved_model`; `data` for int8_static.
        context: seed, folders, progress.

    Returns:
        file `tflite`; facts `operators`, `constant_bytes` and `activation_tensors` (by element type).

    Raises:
        CheckpointError: the model cannot be loaded.
        DataError: int8_static without calibration samples.
        ToolchainError: the converter fails.
    """
    fresh(context.seed)
    data = _calibration(inputs) if settings.scheme is LitertScheme.INT8_STATIC else None

    def configure(converter: Any) -> None:
        if settings.scheme is not LitertScheme.FP32:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if settings.granularity is Granularity.PER_TENSOR:
            converter._experimental_disable_per_channel = True
        if settings.scheme is LitertScheme.FP16:
            converter.target_spec.supported_types = [tf.float16]
        if data is not None:
            converter.representative_dataset = lambda: _samples(data, context)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            int8_io(converter)

    target = context.out / "model.tflite"
    context.report(0.0, f"converting to LiteRT {settings.scheme}")
    target.write_bytes(_convert(inputs, configure, f"scheme {settings.scheme}"))
    facts = describe(target)
    signature = LITERT.load(target).signature
    if settings.scheme is LitertScheme.INT8_STATIC and {
        item.dtype for item in (*signature.inputs, *signature.outputs)
    } != {"int8"}:
        raise InvariantError("An int8 LiteRT file has other inputs or outputs.", expected="int8", got=signature)
    return Outputs({"tflite": OutputFile(target, "tflite", signature)}, facts)


def _convert(inputs: Mapping[str, InputFile], configure: Callable[[Any], None], where: str) -> bytes:
    source = inputs.get("keras") or inputs["saved_model"]
    try:
        if source.artifact.kind == "saved_model":
            converter = tf.lite.TFLiteConverter.from_saved_model(str(source.path))
        else:
            model = keras.models.load_model(source.path, compile=False)
    except Exception as error:  # tf_keras and TensorFlow raise anything here
        raise CheckpointError(
            "The model cannot be loaded for conversion.", where=source.artifact.filename, got=str(error)[:1000]
        ) from error
    if source.artifact.kind != "saved_model":
        return convert_keras(model, configure, where)
    configure(converter)
    return convert(converter, where)


def _calibration(inputs: Mapping[str, InputFile]) -> Dataset:
    data = Dataset(inputs["data"].path)
    if data.sizes[SplitName.CALIBRATION] == 0:
        raise DataError(
            "The calibration split is empty.", where="data.split.calibration", remedy="give it some samples"
        )
    return data


def _samples(data: Dataset, context: StepContext) -> Iterator[list[NDArray[np.float32]]]:
    size = data.sizes[SplitName.CALIBRATION]
    for i in range(size):
        context.report(0.9 * i / size, f"calibration sample {i + 1} of {size}")
        yield [data.features(SplitName.CALIBRATION, i, i + 1)]
