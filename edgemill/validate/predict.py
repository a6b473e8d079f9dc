"""Step body: answers of a compiled file on one split, through the target's own runtime, in its own arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset
from edgemill.emulate.answering import Answering, open_on
from edgemill.emulate.machine import on_this_host
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Task
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.validate import PredictSettings
from edgemill.validate.scores import count_non_finite, reconstructs, split_score

PREDICTIONS = "predictions.npy"


def run(settings: PredictSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Predict one split.

    Inputs:
        model: onnx or tflite.
        data: dataset.

    Outputs:
        predictions: float32 (N, *output_shape), .npy; NaN and infinity are kept as they come.

    Facts: `samples`, `non_finite` (output values), and where there are labels and every output is
    finite, `score` (mean, higher is better). Of what answered: `source` (measured:native,
    emulated:qemu-..., probed:qemu-..., proxy:...-host), `machine`, and `reason` where it is not the
    target's own hardware.
    """
    model_file, data = inputs["model"], Dataset(inputs["data"].path)
    machine = settings.machine or on_this_host()
    model = open_on(machine, model_file.path, model_file.artifact.kind, settings.threads)
    path = context.out / PREDICTIONS
    outputs = _predict_all(model, data, settings, path, context)
    non_finite = count_non_finite(outputs)
    facts: dict[str, Any] = {
        "split": str(settings.split),
        "samples": len(outputs),
        "non_finite": non_finite,
        "source": machine.source,
        "machine": machine.identity,
        "reason": machine.reason,
    }
    score = _score(settings, outputs, data) if non_finite == 0 else None
    if score is not None:
        facts["score"] = score
    return Outputs(files={"predictions": OutputFile(path, kind="predictions", facts=facts)}, facts=facts)


def _score(settings: PredictSettings, outputs: NDArray[np.float32], data: Dataset) -> float | None:
    """Score of the split; None where labels or outputs do not fit, which the gate then names."""
    labels = None if settings.task is Task.UNLABELLED else data.labels(settings.split)
    needs_input = settings.task is Task.ANOMALY and reconstructs(outputs, data.sample_shape)
    return split_score(settings.task, outputs, labels, data.features(settings.split) if needs_input else None)


def _predict_all(
    model: Answering, data: Dataset, settings: PredictSettings, path: Path, context: StepContext
) -> NDArray[np.float32]:
    total = data.sizes[str(settings.split)]
    if total == 0:
        raise DataError("A split without samples cannot be predicted.", where=f"split {settings.split}")
    outputs: NDArray[np.float32] | None = None
    for start in range(0, total, settings.batch_size):
        stop = min(start + settings.batch_size, total)
        answer = np.asarray(model.predict(data.features(settings.split, start, stop)), dtype=np.float32)
        if outputs is None:
            outputs = open_memmap(path, mode="w+", dtype=np.float32, shape=(total, *answer.shape[1:]))
        if answer.shape != (stop - start, *outputs.shape[1:]):
            raise ToolchainError(
                "The model's output does not have one row a sample.",
                where=f"samples {start}..{stop} of split {settings.split}",
                expected=str((stop - start, *outputs.shape[1:])),
                got=str(answer.shape),
            )
        outputs[start:stop] = answer
        context.report(stop / total, f"{stop} of {total} samples")
    assert isinstance(outputs, np.memmap)
    outputs.flush()
    return outputs
