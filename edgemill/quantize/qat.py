"""Step `quantize.qat`: train under quantization (tfmot), export to LiteRT and to ONNX that runs on int8 kernels.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3; with ranges that start from calibration, so that they are real from the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemill.artifact import Signature, size_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError
from edgemill.quantize import QatSettings
from edgemill.quantize.agreement import check, compare, score
from edgemill.quantize.frozen import freeze
from edgemill.quantize.keep_clusters import SharedLevels, after_step
from edgemill.quantize.keep_zeros import ZeroMasks
from edgemill.quantize.placement import build
from edgemill.quantize.qat_export import export_onnx, export_tflite, predictions
from edgemill.quantize.ranges import activation_ranges, calibrate, check_pinned, refresh_weight_ranges
from edgemill.quantize.tflite import describe
from edgemill.runtimes.litert import RUNTIME as LITERT
from edgemill.runtimes.onnxruntime import RUNTIME as ONNXRUNTIME
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras
from edgemill.train.loop import train
from edgemill.train.tuning import tuning_objective


def run(settings: QatSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Train a model under quantization and export it.

    Args:
        settings: training settings and task.
        inputs: `keras`, `data`; `teacher` (fp32 ONNX of the checkpoint) for distillation and for
            task unlabelled.
        context: seed, folders, progress.

    Returns:
        files `tflite` (int8 input and output), `onnx_uint8`, `onnx_int8`; facts `agreement` of each
        with the trained Keras model and validation `score` of each, `kernels` of the optimized ONNX
        graph, `left_out` layers, `float_nodes`, `ranges`, `sparsity` and
        `clusters` of the layers that came pruned or clustered, `history`.

    Raises:
        CheckpointError: the model cannot be trained under quantization.
        QualityGateError: training diverged.
        ToolchainError: an export failed, answers differently, or does not run on int8 kernels.
    """
    fresh(context.seed)
    data = Dataset(inputs["data"].path)
    original = _load(inputs["keras"])
    qat = build(original)
    context.report(0.0, "calibrating activation ranges")
    calibrate(qat, data, settings.calibration_batch_size)
    started = _ranges(qat)
    updates = data.sizes[SplitName.TRAIN] // settings.training.batch_size * settings.training.epochs
    masks, levels = ZeroMasks(qat), SharedLevels(qat, updates)
    hook = after_step(masks.after_step, levels.after_step)
    history = train(
        qat.model,
        data,
        settings.training,
        tuning_objective(settings.training, settings.task, inputs),
        context,
        after_step=hook,
    )
    masks.check()
    levels.check()
    check_pinned(qat)
    refresh_weight_ranges(qat)
    trained = predictions(qat.model, data, SplitName.VALIDATION)
    frozen = freeze(qat)
    context.report(1.0, "exporting to LiteRT and ONNX")

    files: dict[str, OutputFile] = {}
    facts: dict[str, Any] = {
        "score": {"keras": score(trained, data, settings.task)},
        "agreement": {},
        "kernels": {},
        "float_nodes": {},
        "left_out": qat.left_out,
        "ranges": _ranges(qat),
        "calibrated_ranges": started,
        "sparsity": masks.layers,
        "clusters": levels.layers,
        "history": history.record(),
        "warnings": [f"layer {name} stays float: {reason}" for name, reason in qat.left_out.items()],
    }
    x = data.features(SplitName.VALIDATION)

    def judge(name: str, runtime: Any, path: Any) -> Signature:
        loaded = runtime.load(path)
        answers = loaded.predict(x)
        facts["agreement"][name] = check(compare(answers, trained, settings.task), path.name)
        facts["score"][name] = score(answers, data, settings.task)
        signature: Signature = loaded.signature
        return signature

    for activations, (path, report, kernels) in export_onnx(frozen, context.out).items():
        name = f"onnx_{activations}"
        signature = judge(name, ONNXRUNTIME, path)
        facts["kernels"][name] = kernels.record() | {"quantized_weights": report.quantized}
        facts["float_nodes"][name] = report.float_nodes
        facts["warnings"] += [f"{name}: {node} runs on a float kernel" for node in kernels.unfused]
        files[name] = OutputFile(path, "onnx", signature, {"size_bytes": size_of(path)})
    path = context.out / "model.tflite"
    export_tflite(frozen, path)
    files["tflite"] = OutputFile(path, "tflite", judge("tflite", LITERT, path), describe(path))
    return Outputs(files, facts)


def _load(source: InputFile) -> Any:
    try:
        return keras.models.load_model(source.path, compile=False)
    except Exception as error:  # tf_keras raises anything here
        raise CheckpointError(
            "The model cannot be loaded for training.", where=source.artifact.filename, got=str(error)[:1000]
        ) from error


def _ranges(qat: Any) -> dict[str, list[float]]:
    return {item.layer: list(item.limits) for item in activation_ranges(qat)}
