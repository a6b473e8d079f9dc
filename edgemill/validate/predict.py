"""Step body: answers of a compiled file on one split, through the target's own runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset
from edgemill.errors import DataError, ToolchainError
from edgemill.recipe import Task
from edgemill.runtimes import open_model
from edgemill.runtimes.base import LoadedModel
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.validate import PredictSettings
from edgemill.validate.scores import count_non_finite, score_samples

PREDICTIONS = "predictions.npy"


def run(settings: PredictSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Predict one split.

    Inputs:
        model: onnx or tflite.
        data: dataset.

    Outputs:
        predictions: float32 (N, *output_shape), .npy; NaN and infinity are kept as they come.

    Facts: `samples`, `non_finite` (output values), and where there are labels and every output is
    finite, `score` (mean, higher is better).
    """
    model_file, data = inputs["model"], Dataset(inputs["data"].path)
    model = open_model(model_file.path, model_file.artifact.kind, settings.threads)
    path = context.out / PREDICTIONS
    outputs = _predict_all(model, data, settings, path, context)
    non_finite = count_non_finite(outputs)
    facts: dict[str, Any] = {"split": str(settings.split), "samples": len(outputs), "non_finite": non_finite}
    if settings.task is not Task.UNLABELLED and non_finite == 0:
        facts["score"] = float(score_samples(settings.task, outputs, data.labels(settings.split)).mean())
    return Outputs(files={"predictions": OutputFile(path, kind="predictions", facts=facts)}, facts=facts)


def _predict_all(
    model: LoadedModel, data: Dataset, settings: PredictSettings, path: Path, context: StepContext
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
