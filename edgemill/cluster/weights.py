"""Step `cluster.weights`: let the weights of a layer share levels while fine-tuning, and prove it on the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemill.cluster import ClusterSettings
from edgemill.cluster.codebook import fit, to_rows
from edgemill.cluster.projection import MOVING, Place, Projection
from edgemill.cluster.select import Choice, choose
from edgemill.cluster.verify import Kernel, find
from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import CheckpointError
from edgemill.ingest.export import keras_to_onnx, save_keras
from edgemill.prune.select import leaves
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.tf import fresh, keras, tf
from edgemill.train.loop import train
from edgemill.train.objective import Answer, Objective, answer_kind, checked_labels
from edgemill.train.score import predictions, reference, score
from edgemill.train.tuning import tuning_objective


def run(settings: ClusterSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Cluster the weights of a model.

    Args:
        settings: the recipe's, and the task.
        inputs: `keras` (the model), `teacher` (onnx of the checkpoint), `data` (dataset).
        context: where to write.

    Returns:
        files `keras` and `onnx`, plain models whose clustered kernels lie on int8 levels; facts `layers`
        (different values, weights, zeros and entropy by layer, as found in the ONNX graph),
        `not_clustered` (with reasons), `parameters`, `score_before` (as given), `score_clustered`
        (before fine-tuning), `score`, `history`, `warnings`.

    Raises:
        CheckpointError: no layer can be clustered.
        QualityGateError: training diverged.
    """
    fresh(context.seed)
    data = Dataset(inputs["data"].path)
    model = keras.models.load_model(inputs["keras"].path, compile=False)
    choices = choose(model)
    chosen = [choice for choice in choices if choice.reason is None]
    if not chosen:
        raise CheckpointError(
            "The model has no layer that can be clustered.",
            where="stages.cluster",
            got="; ".join(f"{c.layer.name}: {c.reason}" for c in choices) or "no layer with weights",
            remedy="leave out stages.cluster",
        )
    objective = tuning_objective(settings, settings.task, inputs)
    before = _score(model, data, objective)
    places = [_place(choice, settings, context.seed, number) for number, choice in enumerate(chosen)]
    updates = max(1, data.sizes[SplitName.TRAIN] // settings.batch_size) * settings.epochs
    projection = Projection(places, int(updates * MOVING))
    clustered = _score(model, data, objective)
    history = train(model, data, settings, objective, context, after_step=projection.after_step)
    context.report(1.0, "exporting the clustered model")
    shared = projection.shared()
    plain = _plain(model, inputs["keras"])
    save_keras(plain, context.out / "model.keras")
    signature = keras_to_onnx(plain, context.out / "model.onnx")
    kernels = [
        Kernel(place.name, tuple(place.kernel.shape), place.axes, held.steps)
        for place, held in zip(places, shared, strict=True)
    ]
    layers = find(kernels, context.out / "model.onnx")
    facts: dict[str, Any] = {
        "layers": [
            asdict(layer) | {"zeros_given": int(place.fixed.sum())} for layer, place in zip(layers, places, strict=True)
        ],
        "not_clustered": [choice.record() for choice in choices if choice.reason is not None],
        "parameters": int(plain.count_params()),
        "score_before": before,
        "score_clustered": clustered,
        "score": history.best_score,
        "history": history.record(),
        "warnings": [
            f"layer {layer.layer}: the exported graph scales its inputs, so its weights share no levels there"
            for layer in layers
            if layer.tensor is None
        ],
    }
    files = {
        "keras": OutputFile(context.out / "model.keras", "keras"),
        "onnx": OutputFile(context.out / "model.onnx", "onnx", signature),
    }
    return Outputs(files, facts)


def _place(choice: Choice, settings: ClusterSettings, seed: int, number: int) -> Place:
    rows = to_rows(choice.kernel.numpy(), choice.axes)
    pruned = choice.pruned
    shared = fit(rows, settings.clusters, settings.start, np.random.default_rng([seed, number]), pruned)
    fixed = (rows == 0) if pruned else np.zeros(rows.shape, bool)
    return Place(choice.layer.name, choice.layer, choice.kernel, choice.axes, shared, fixed)


def _plain(trained: Any, source: InputFile) -> Any:
    """The model without the projection's variables, which stand behind the layers' own."""
    plain = keras.models.load_model(source.path, compile=False)
    for layer, held in zip(leaves(plain), leaves(trained), strict=True):
        layer.set_weights(held.get_weights()[: len(layer.weights)])
    return plain


def _score(model: Any, data: Dataset, objective: Objective) -> float:
    kind = answer_kind(model, objective.task, data)
    values = kind is Answer.VALUES
    outputs = int(np.prod(model.output_shape[1:]))
    labels = checked_labels(objective, kind, data, SplitName.VALIDATION, outputs)
    call = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    answers = predictions(lambda x: call(tf.constant(x)).numpy(), data)
    return score(answers, reference(objective.teacher, labels, values, data), values)
