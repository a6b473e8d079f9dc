"""What a trained model under quantization becomes: LiteRT int8, and ONNX int8 for x86 and for ARM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgemill.errors import ToolchainError
from edgemill.ingest.export import keras_to_onnx
from edgemill.quantize.kernels import Kernels, optimized_kernels
from edgemill.quantize.qdq import QdqReport, quantize_export
from edgemill.quantize.tflite import convert_keras, int8_io
from edgemill.targets.spec import ActivationType
from edgemill.tf import tf

_CONVOLUTIONS = ("Conv ", "FusedConv ")


def export_onnx(frozen: Any, folder: Path) -> dict[ActivationType, tuple[Path, QdqReport, Kernels]]:
    """Write `model_uint8.onnx` and `model_int8.onnx`: the same grids, stored for x86 and for ARM.

    Args:
        frozen: as `edgemill.quantize.frozen.freeze` makes it.
        folder: where to write.

    Raises:
        ToolchainError: the export failed, or a convolution with int8 weights would run on a float kernel.
    """
    raw = folder / "fake_quantized.onnx"
    keras_to_onnx(frozen, raw)
    made = {}
    for activations in ActivationType:
        model = onnx.load(str(raw))
        report = quantize_export(model, activations)
        path = folder / f"model_{activations}.onnx"
        try:
            onnx.checker.check_model(model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ToolchainError(
                "The quantized graph is not valid ONNX.", where=path.name, got=str(error)[:2000]
            ) from error
        onnx.save_model(model, str(path))
        kernels = optimized_kernels(path)
        _refuse_float_convolutions(path, report, kernels)
        made[activations] = (path, report, kernels)
    raw.unlink()
    return made


def _refuse_float_convolutions(path: Path, report: QdqReport, kernels: Kernels) -> None:
    left = [name for name in kernels.unfused if name.startswith(_CONVOLUTIONS)]
    excused = list(report.float_nodes)
    unexpected = [name for name in left if name.split(" ", 1)[1] not in excused]
    if unexpected:
        raise ToolchainError(
            "onnxruntime runs convolutions of the quantized model on float kernels.",
            where=path.name,
            expected="QLinearConv for every convolution with int8 weights",
            got=", ".join(unexpected),
            remedy="leave the scheme int8_qat out for this model; int8_static may still work. Please report the model",
        )


def export_tflite(frozen: Any, path: Path) -> None:
    """Write int8 LiteRT with int8 input and output.

    The converter takes activation ranges from the `Grid`s and finds the weights' grids itself.

    Raises:
        ToolchainError: the converter failed.
    """

    def configure(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        int8_io(converter)

    path.write_bytes(convert_keras(frozen, configure, path.name))


def predictions(model: Any, data: Any, split: Any, chunk: int = 256) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Answers of a Keras model to a split, float32 (N, ...)."""
    call = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    parts = [
        call(tf.constant(data.features(split, start, start + chunk))).numpy()
        for start in range(0, data.sizes[split], chunk)
    ]
    return np.concatenate(parts)
