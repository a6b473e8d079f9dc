"""Step body: a compiled file in the oldest runtime that its target may have, against the newest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgemill.compile.verify import compare, numbers_of
from edgemill.data.dataset import Dataset
from edgemill.runtimes import open_model, runtime_of
from edgemill.step import InputFile, Outputs, StepContext
from edgemill.validate import OldestSettings


def run(settings: OldestSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Answer a split's first samples; this runs in the environment of the oldest runtime.

    Inputs:
        model: the compiled file.
        data: dataset.
        predictions: answers of the newest runtime on the same split, float32 (N, *output_shape), .npy.

    Facts: `runtime`, `version`, and of the comparison `compared`, `agreement` (share of equal argmax),
    `max_difference` and `mean_difference` (relative to the range of the answers).

    Raises:
        ToolchainError: the file does not load in the oldest runtime, or answers otherwise there.
    """
    file = inputs["model"]
    newest = np.load(inputs["predictions"].path, mmap_mode="r", allow_pickle=False)[: settings.samples]
    x = Dataset(inputs["data"].path).features(settings.split, 0, len(newest))
    context.report(None, "answering in the oldest runtime")
    runtime = runtime_of(file.artifact.kind)
    answer = open_model(file.path, file.artifact.kind).predict(x)
    where = f"{runtime.name} {runtime.version()}, the oldest of the target's range"
    found = compare(np.asarray(newest, np.float32), answer, numbers_of(settings.scheme), where)
    return Outputs(facts={"runtime": runtime.name, "version": runtime.version()} | found)
