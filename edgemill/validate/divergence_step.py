"""Step body: exact arithmetic on this host against the target's arithmetic, outputs and layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import TensorSpec
from edgemill.data.dataset import Dataset
from edgemill.emulate.answering import open_on, trace_on
from edgemill.emulate.machine import Machine, reference
from edgemill.emulate.trace import Tensors
from edgemill.errors import DataError, EdgemillError
from edgemill.runtimes import open_model
from edgemill.runtimes.convert import to_real
from edgemill.step import InputFile, Outputs, StepContext
from edgemill.validate.divergence import Closeness, Difference, Divergence, DivergenceSettings, Layer
from edgemill.validate.divergence_measure import measure
from edgemill.validate.taps import operators_of_tflite, tap

_PORTION = 32


def run(settings: DivergenceSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Compare a compiled file's answers on reference and target.

    Inputs:
        model: onnx or tflite, as it ships.
        data: dataset.

    Facts: `Divergence`.

    Raises:
        DataError: the split is empty.
        ToolchainError: one of the machines cannot run the file.
    """
    file, data = inputs["model"], Dataset(inputs["data"].path)
    x = data.features(settings.split, 0, min(settings.samples, data.sizes[str(settings.split)]))
    if len(x) == 0:
        raise DataError("A split without samples cannot be compared.", where=f"split {settings.split}")
    found = diverge(file.path, file.artifact.kind, x, settings, context)
    return Outputs(facts=found.model_dump(mode="json"))


def diverge(
    path: Path, kind: str, x: NDArray[np.float32], settings: DivergenceSettings, context: StepContext
) -> Divergence:
    """Compare outputs, and where they are not equal find the first layer that is not.

    Args:
        path: the file.
        kind: onnx or tflite.
        x: float32 (N, *sample_shape).
        settings: target, number of samples to trace.
        context: scratch folder and progress.
    """
    exact, target, threads = reference(), settings.machine, settings.threads
    expected = open_on(exact, path, kind, threads).predict(x)
    model, parts = open_on(target, path, kind, threads), []
    for start in range(0, len(x), _PORTION):
        parts.append(model.predict(x[start : start + _PORTION]))
        done = min(start + _PORTION, len(x))
        context.report(0.8 * done / len(x), f"{done} of {len(x)} samples on {target.identity}")
    answers = np.concatenate(parts)
    output = measure(expected, answers, str(path))
    found = Divergence(
        reference=exact.identity,
        target=target.identity,
        source=target.source,
        samples=len(x),
        output=output,
        first=None,
        traced=0,
        faithful=None,
        note=target.reason,
    )
    if output.closeness is Closeness.EQUAL or settings.traced == 0:
        return found
    worst = np.argsort(np.abs(np.nan_to_num(expected - answers)).reshape(len(x), -1).max(axis=1))[::-1]
    chosen = np.sort(worst[: settings.traced])
    context.report(0.85, f"following {len(chosen)} samples through the layers")
    try:
        return _traced(found, (exact, target), path, kind, x[chosen], (expected[chosen], answers[chosen]), context)
    except EdgemillError as error:
        # the outputs are compared: a graph that cannot be traced only lacks the name of the layer
        return found.model_copy(update={"note": "; ".join(filter(None, [found.note, f"not traced: {error.what}"]))})


def _traced(
    found: Divergence,
    machines: tuple[Machine, Machine],
    path: Path,
    kind: str,
    x: NDArray[np.float32],
    untapped: tuple[NDArray[np.float32], NDArray[np.float32]],
    context: StepContext,
) -> Divergence:
    scratch = context.resume / "tapped.onnx"
    operators = tap(path, scratch) if kind == "onnx" else operators_of_tflite(path)
    shown = scratch if kind == "onnx" else path
    tensors = [trace_on(machine, shown, kind, x) for machine in machines]
    names = [name for name in operators if all(name in side for side in tensors)]
    compared = {name: measure(tensors[0][name], tensors[1][name], f"tensor {name}") for name in names}
    first = _first(compared, found.output.closeness)
    layer = None
    if first is not None:
        layer = Layer(
            tensor=first,
            operator=operators[first],
            index=names.index(first),
            dtype=str(tensors[0][first].dtype),
            difference=compared[first],
        )
    output = open_model(path, kind).signature.outputs[0]
    faithful = all(_unchanged(side, output, answers) for side, answers in zip(tensors, untapped, strict=True))
    notes = [found.note] if found.note else []
    if not faithful:
        notes.append("looking at the layers changed the answers, so the layer may be another one")
    if kind == "tflite":
        notes.append("layers are those of LiteRT's plain kernels, because XNNPACK shows none")
    update = {"first": layer, "traced": len(names), "faithful": faithful, "note": "; ".join(notes)}
    return found.model_copy(update=update)


def _first(compared: Mapping[str, Difference], overall: Closeness) -> str | None:
    """The first tensor that differs as much as the outputs do, in kind."""
    alike = {Closeness.EQUAL} if overall is Closeness.ROUNDING else {Closeness.EQUAL, Closeness.ROUNDING}
    return next((name for name, difference in compared.items() if difference.closeness not in alike), None)


def _unchanged(tensors: Tensors, output: TensorSpec, answers: NDArray[np.float32]) -> bool:
    """Whether the model answered with taps what it answers without."""
    if output.name not in tensors:
        return False
    real = to_real(tensors[output.name], output).reshape(len(answers), -1)
    wanted = answers.reshape(len(answers), -1)
    return np.array_equal(real[:, : wanted.shape[1]], wanted, equal_nan=True)
