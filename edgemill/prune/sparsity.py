"""Step `prune.sparsity`: prune with tfmot while fine-tuning, strip, and prove it on the exported graph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.prune import PruneSettings
from edgemill.prune.select import GROUP, choose, kernel_of
from edgemill.prune.verify import verify
from edgemill.recipe import PruneMethod
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras
from edgemill.train.loop import train
from edgemill.train.tuning import tuning_objective

_UPDATES = 50
_RAMP = 0.6
"""Share of the steps in which the sparsity grows; the rest is fine-tuning at full sparsity."""


def run(settings: PruneSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Prune a model.

    Args:
        settings: the recipe's, and the task.
        inputs: `keras` (the model), `teacher` (onnx of the checkpoint), `data` (dataset).
        context: where to write.

    Returns:
        files `keras` and `onnx`, stripped of tfmot's wrappers, zeros exact; facts `layers` (sparsity by
        layer, measured in the ONNX graph), `not_pruned` (with reasons), `sparsity` (of all weights of
        pruned layers), `parameters`, `nonzero_parameters`, `score`, `history`.

    Raises:
        CheckpointError: no layer can be pruned.
        InvariantError: the exported graph does not have the zeros.
    """
    fresh(context.seed)
    data = Dataset(inputs["data"].path)
    model = keras.models.load_model(inputs["keras"].path, compile=False)
    choices = choose(model, settings.method)
    chosen = [choice.layer for choice in choices if choice.reason is None]
    if not chosen:
        raise CheckpointError(
            "The model has no layer that can be pruned.",
            where="stages.prune",
            got="; ".join(f"{c.name}: {c.reason}" for c in choices) or "no layer with weights",
            remedy="leave out stages.prune",
        )
    steps = max(1, data.sizes[SplitName.TRAIN] // settings.batch_size)
    end = _end_of_ramp(steps * settings.epochs)
    wrapped = wrap(model, chosen, settings, end)
    history = train(
        wrapped,
        data,
        settings,
        tuning_objective(settings, settings.task, inputs),
        context,
        callbacks=[tfmot.sparsity.keras.UpdatePruningStep()],
        keep_from=0 if settings.method is PruneMethod.N_M else math.ceil(end / steps) - 1,
    )
    context.report(1.0, "exporting the pruned model")
    stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
    save_keras(stripped, context.out / "model.keras")
    signature = keras_to_onnx(stripped, context.out / "model.onnx")
    kernels = [(layer.name, kernel.numpy()) for layer in chosen if (kernel := kernel_of(layer)) is not None]
    layers = verify(kernels, context.out / "model.onnx", settings.method, settings.sparsity)
    facts: dict[str, Any] = {
        "layers": [asdict(layer) for layer in layers],
        "not_pruned": [choice.record() for choice in choices if choice.reason is not None],
        "sparsity": sum(layer.zeros for layer in layers) / sum(layer.weights for layer in layers),
        "parameters": int(stripped.count_params()),
        "nonzero_parameters": sum(int(np.count_nonzero(weight)) for weight in stripped.get_weights()),
        "score": history.best_score,
        "history": history.record(),
    }
    files = {
        "keras": OutputFile(context.out / "model.keras", "keras"),
        "onnx": OutputFile(context.out / "model.onnx", "onnx", signature),
    }
    return Outputs(files, facts)


def wrap(model: Any, chosen: list[Any], settings: PruneSettings, end: int) -> Any:
    """The same model, same weights, with tfmot's pruning wrapper around the chosen layers.

    Args:
        model: tf_keras model.
        chosen: its layers that are pruned; they are wrapped, not copied.
        settings: method and sparsity.
        end: step at which the full sparsity is reached.
    """
    frequency = max(1, end // _UPDATES)
    if settings.method is PruneMethod.N_M:
        arguments: dict[str, Any] = {
            "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=1),
            "sparsity_m_by_n": (GROUP // 2, GROUP),
        }
    else:
        arguments = {
            "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
                initial_sparsity=0.0,
                final_sparsity=settings.sparsity,
                begin_step=0,
                # The last update falls on a multiple of the frequency.
                end_step=end // frequency * frequency,
                frequency=frequency,
            )
        }

    pruned = {id(layer) for layer in chosen}

    def wrapped(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=wrapped)
        return tfmot.sparsity.keras.prune_low_magnitude(layer, **arguments) if id(layer) in pruned else layer

    return keras.models.clone_model(model, clone_function=wrapped)


def _end_of_ramp(steps: int) -> int:
    return max(1, int(steps * _RAMP))
