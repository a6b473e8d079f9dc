"""What a training run minimises: labels, softened answers of a teacher, and feature maps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, RecipeError
from edgemill.recipe import Task
from edgemill.tf import keras, tf
from edgemill.train import WITHOUT_LABELS
from edgemill.train.answers import Answers, answers_with_values
from edgemill.train.features import FeatureLoss
from edgemill.train.teacher import Teacher

# Smallest probability whose logarithm is taken; still a normal float32.
_TINY = 1e-30
_PROBE = 64


class Answer(StrEnum):
    """What a model's output means."""

    LOGITS = "logits"
    """Class scores before softmax."""
    SOFTMAX = "softmax"
    """Class probabilities that sum to 1."""
    SIGMOID = "sigmoid"
    """One probability per class."""
    VALUES = "values"
    """Real values, compared by their squared difference."""


@dataclass(frozen=True)
class Objective:
    """Loss = (1 - soft_weight) * labels + soft_weight * teacher + features.

    Classification: cross-entropy with the labels, and temperature^2 * KL(teacher || student) with
    both logits divided by the temperature (Hinton et al. 2015, section 2). Regression: squared
    errors. Unlabelled and anomaly: the teacher only.

    Attributes:
        task: what the model answers.
        teacher: needed where soft_weight > 0, for tasks that train without labels, and for features.
        temperature: softens both answers.
        soft_weight: share of the teacher's answers in the loss.
        features: an additional loss on feature maps.
        answers: the teacher's answers to the views of the training samples, where they are known
            already; a shortcut that does not change the loss.
    """

    task: Task
    teacher: Teacher | None
    temperature: float = 1.0
    soft_weight: float = 0.0
    features: FeatureLoss | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        needed = self.soft_weight > 0 or self.task in WITHOUT_LABELS or self.features is not None
        if needed and self.teacher is None:
            raise RecipeError(
                "Learning from a teacher needs a teacher.",
                where=f"task {self.task}",
                got=f"soft_weight {self.soft_weight}",
            )
        if self.task in WITHOUT_LABELS and self.soft_weight < 1:
            raise RecipeError(
                "There are no labels to learn from.",
                where="soft_weight",
                expected=f"1 for task {self.task}",
                got=str(self.soft_weight),
            )

    def record(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return {
            "task": str(self.task),
            "temperature": self.temperature,
            "soft_weight": self.soft_weight,
            "features": None if self.features is None else self.features.record(),
            "views_seed": None if self.answers is None else self.answers.seed,
        }


def answer_kind(model: Any, task: Task, data: Dataset) -> Answer:
    """Find what a model's output means.

    What does not answer with values (see `answers_with_values`) answers with class scores; the final
    activation of the last layer tells which form they have. Where the last layer has no known
    activation (e.g. a nested model), outputs that are probabilities of 64 training samples summing to
    1 are taken for a softmax.
    """
    shape = tuple(model.output_shape[1:])
    if answers_with_values(task, shape, data.sample_shape):
        return Answer.VALUES
    if len(shape) != 1:
        raise DataError(
            "A classifier answers with one score per class.",
            where="model output",
            expected="shape (N, classes)",
            got=str(shape),
        )
    activation = _final_activation(model)
    if activation in {"softmax", "sigmoid"}:
        return Answer(activation)
    if activation is None:
        x = data.features(SplitName.TRAIN, 0, _PROBE)
        y = np.asarray(model(x, training=False))
        if (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-4):
            return Answer.SOFTMAX
    return Answer.LOGITS


def _final_activation(model: Any) -> str | None:
    """Name of the activation that the output comes from, None if it cannot be told."""
    history = getattr(model.output, "_keras_history", None)
    layer = history.layer if history is not None else (model.layers[-1] if model.layers else None)
    while layer is not None and hasattr(layer, "layer"):
        layer = layer.layer
    if isinstance(layer, keras.Model):
        return _final_activation(layer) if layer.layers else None
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    # tfmot's QuantizeAwareActivation holds the real one.
    activation = getattr(activation, "activation", activation)
    return getattr(activation, "__name__", None)


def to_logits(output: Any, kind: Answer) -> Any:
    """Class scores before the final activation: log p for a softmax, the log-odds for a sigmoid.

    softmax(log p) = p, so a loss on these logits is the loss on the original ones.
    """
    if kind is Answer.SOFTMAX:
        return tf.math.log(tf.maximum(output, _TINY))
    if kind is Answer.SIGMOID:
        return tf.math.log(tf.maximum(output, _TINY)) - tf.math.log(tf.maximum(1.0 - output, 1e-7))
    return output


def loss_of(objective: Objective, kind: Answer, output: Any, labels: Any | None, soft: Any | None) -> Any:
    """The loss of a batch, a scalar tensor, without features and regularizers.

    Args:
        objective: weights and temperature.
        kind: what `output` means.
        output: what the model answered, (N, ...).
        labels: int (N,) or float (N, ...); None where there are none.
        soft: the teacher's logits, or its values where `kind` is VALUES; None without a teacher.
    """
    weight = objective.soft_weight
    loss = tf.constant(0.0)
    if kind is Answer.VALUES:
        if labels is not None and weight < 1:
            loss += (1 - weight) * tf.reduce_mean(tf.square(output - tf.reshape(labels, tf.shape(output))))
        if soft is not None and weight > 0:
            loss += weight * tf.reduce_mean(tf.square(output - tf.reshape(soft, tf.shape(output))))
        return loss
    logits = to_logits(output, kind)
    if labels is not None and weight < 1:
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loss += (1 - weight) * tf.reduce_mean(hard)
    if soft is not None and weight > 0:
        t = objective.temperature
        teacher = tf.nn.log_softmax(soft / t)
        difference = teacher - tf.nn.log_softmax(logits / t)
        divergence = tf.reduce_sum(tf.exp(teacher) * difference, axis=-1)
        loss += weight * t * t * tf.reduce_mean(divergence)
    return loss


def checked_labels(
    objective: Objective, kind: Answer, data: Dataset, split: SplitName, outputs: int
) -> NDArray[np.generic] | None:
    """Labels of a split, None where the objective uses none.

    Raises:
        DataError: labels that do not fit the model's output.
    """
    if objective.task in WITHOUT_LABELS:
        return None
    labels = data.labels(split)
    if kind is Answer.VALUES:
        values = labels.astype(np.float32)
        if values.reshape(len(values), -1).shape[1] != outputs:
            raise DataError(
                "The targets do not have the size of the model's output.",
                where=f"split {split}",
                expected=f"{outputs} values per sample",
                got=str(values.shape[1:]),
            )
        return values
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= outputs):
        raise DataError(
            "A label is not one of the model's classes.",
            where=f"split {split}",
            expected=f"0..{outputs - 1}",
            got=f"{int(labels.min())}..{int(labels.max())}",
        )
    return labels.astype(np.int32)
