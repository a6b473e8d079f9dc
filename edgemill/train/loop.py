"""The training loop: compiled steps, cosine schedule, early stopping, and a resume file an epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import QualityGateError
from edgemill.recipe import Optimizer, Training
from edgemill.step import StepContext
from edgemill.tf import keras, tf
from edgemill.train import snapshot as snapshots
from edgemill.train.batches import Batch, Batches
from edgemill.train.objective import Answer, Objective, answer_kind, checked_labels, loss_of
from edgemill.train.score import predictions, reference, score
from edgemill.train.snapshot import Snapshot

__all__ = ["History", "Objective", "train"]

_MOMENTUM = 0.9
_WARM_UP = 0.05
_START = 0.1
_REPORT_EVERY_S = 1.0
_KERNEL_RANK = 2


@dataclass(frozen=True)
class History:
    """How a training run went.

    Attributes:
        epochs: for every epoch `loss`, `score` (validation, higher is better), `learning_rate`, `seconds`.
        best_epoch: index of the epoch whose weights the model has now.
        resumed_from: epochs that an earlier, interrupted run had finished; None if there was none.
        stopped_early: whether `patience` ended the run.
    """

    epochs: tuple[dict[str, float], ...]
    best_epoch: int
    resumed_from: int | None
    stopped_early: bool

    @property
    def best_score(self) -> float:
        """Validation score of the weights that were kept."""
        return self.epochs[self.best_epoch]["score"]

    def record(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self) | {"epochs": list(self.epochs), "best_score": self.best_score}


def train(
    model: Any,
    data: Dataset,
    settings: Training,
    objective: Objective,
    context: StepContext,
    *,
    callbacks: Sequence[Any] = (),
    after_step: Callable[[], None] | None = None,
    keep_from: int = 0,
) -> History:
    """Train a tf_keras model in place and leave it with the best weights.

    Kept are the weights of the epoch with the best validation score, the later one of equals: the
    cosine schedule makes late epochs the best as a rule, and a run that overfits does not ship its
    last epoch. The score is selected on validation data only; the gate judges on test data.

    After every epoch the state is written to `context.resume`; a later call with the same settings,
    seed and model structure goes on from there and sees the batches it would have seen.

    Args:
        model: functional or sequential tf_keras model, tfmot wrappers included.
        data: trains on the training split, selects on the validation split.
        settings: epochs, batch size, optimizer, schedule, patience, augmentation.
        objective: what is minimised.
        context: seed, resume folder, progress.
        callbacks: Keras callbacks; `on_epoch_end` runs before the validation of the epoch.
        after_step: called inside the compiled step after the weights were updated; TensorFlow
            operations on the model's variables only (e.g. a projection).
        keep_from: first epoch whose weights may be kept (e.g. when a pruning schedule is through).

    Raises:
        QualityGateError: the loss or a weight became NaN or infinite.
        DataError: the labels do not fit the model's output.
    """
    run = _Run(model, data, settings, objective, context, callbacks=tuple(callbacks), after_step=after_step)
    return run.go(keep_from)


class _Run:
    def __init__(
        self,
        model: Any,
        data: Dataset,
        settings: Training,
        objective: Objective,
        context: StepContext,
        *,
        callbacks: tuple[Any, ...],
        after_step: Callable[[], None] | None,
    ) -> None:
        self.model, self.data, self.settings, self.objective, self.context = model, data, settings, objective, context
        self.after_step = after_step
        self.kind = answer_kind(model, objective.task, data)
        outputs = math.prod(model.output_shape[1:])
        self.values = self.kind is Answer.VALUES
        self.expected = reference(
            objective.teacher,
            checked_labels(objective, self.kind, data, SplitName.VALIDATION, outputs),
            self.values,
            data,
        )
        asks = objective.soft_weight > 0 or objective.features is not None
        self.batches = Batches(
            data,
            checked_labels(objective, self.kind, data, SplitName.TRAIN, outputs),
            settings,
            objective.teacher if asks else None,
            context.seed,
            logits=not self.values,
            answers=objective.answers,
        )
        self._prepare_network()
        self.optimizer = _optimizer(settings, self.batches.steps)
        self.optimizer.exclude_from_weight_decay([v for v in self.trainable if v.shape.rank < _KERNEL_RANK])
        self.optimizer.build(self.trainable)
        self.variables = [*model.variables, *self._regressor_variables(), *_optimizer_variables(self.optimizer)]
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), add_history=False, model=model)
        self.step = tf.function(self._step, reduce_retracing=True)
        self.random = any(hasattr(layer, "_random_generator") for layer in model._flatten_layers())
        self.predict = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        self.identity = snapshots.identity(
            [settings.model_dump(mode="json"), objective.record(), context.seed, data.sizes], self.variables
        )

    def _prepare_network(self) -> None:
        features = self.objective.features
        self.regressors: list[Any] = [] if features is None else features.regressors()
        if features is None:
            self.network = self.model
        else:
            maps = [self.model.get_layer(pair.layer).output for pair in features.pairs]
            self.network = keras.Model(self.model.inputs, [self.model.output, *maps])
            for layer, tensor in zip(self.regressors, maps, strict=False):
                layer.build(tensor.shape)
        self.trainable = [*self.model.trainable_variables, *self._regressor_variables()]

    def _regressor_variables(self) -> list[Any]:
        return [variable for layer in self.regressors for variable in layer.variables]

    def _step(self, x: Any, y: Any, soft: Any, maps: Any) -> Any:
        features = self.objective.features
        with tf.GradientTape() as tape:
            answer = self.network(x, training=True)
            output, own = (answer, []) if features is None else (answer[0], list(answer[1:]))
            loss = loss_of(self.objective, self.kind, output, y, soft)
            if features is not None:
                loss += features.loss(own, list(maps), self.regressors)
            if self.model.losses:
                loss += tf.add_n(self.model.losses)
        gradients = tape.gradient(loss, self.trainable)
        self.optimizer.apply_gradients(
            [(g, v) for g, v in zip(gradients, self.trainable, strict=True) if g is not None]
        )
        if self.after_step is not None:
            self.after_step()
        return loss

    def go(self, keep_from: int) -> History:
        epochs, best, best_epoch = self._resume()
        resumed_from = len(epochs) or None
        patience = self.settings.patience
        first = min(keep_from, self.settings.epochs - 1)
        stopped = False
        self.callbacks.on_train_begin()
        for epoch in range(len(epochs), self.settings.epochs):
            if stopped := patience is not None and best_epoch >= 0 and epoch - 1 - best_epoch >= patience:
                break
            started = time.monotonic()
            loss = self._epoch(epoch, epochs)
            value = self._validate(epoch)
            epochs.append(
                {
                    "loss": loss,
                    "score": value,
                    "learning_rate": float(self.optimizer.learning_rate.numpy()),
                    "seconds": time.monotonic() - started,
                }
            )
            if epoch >= first and (best_epoch < 0 or value >= epochs[best_epoch]["score"]):
                best_epoch = epoch
                best = tuple(variable.numpy() for variable in self.model.variables)
            state = tuple(variable.numpy() for variable in self.variables)
            snapshots.save(self.context.resume, self.identity, Snapshot(state, best, tuple(epochs), best_epoch))
        self.callbacks.on_train_end()
        for variable, kept in zip(self.model.variables, best, strict=True):
            variable.assign(kept)
        return History(tuple(epochs), best_epoch, resumed_from, stopped)

    def _resume(self) -> tuple[list[dict[str, float]], tuple[Any, ...], int]:
        found = snapshots.load(self.context.resume, self.identity)
        if found is None:
            return [], (), -1
        for variable, value in zip(self.variables, found.state, strict=True):
            variable.assign(value)
        self.context.report(len(found.epochs) / self.settings.epochs, f"going on after epoch {len(found.epochs)}")
        return list(found.epochs), found.best, found.best_epoch

    def _epoch(self, epoch: int, earlier: list[dict[str, float]]) -> float:
        if self.random:
            # The seeds of dropout and the like are fixed when the step is traced; with new ones for every
            # epoch a resumed run draws what an undisturbed one would.
            keras.utils.set_random_seed(int(np.random.default_rng([self.context.seed, epoch]).integers(2**31)))
            self.step = tf.function(self._step, reduce_retracing=True)
        self.callbacks.on_epoch_begin(epoch)
        total, told = 0.0, 0.0
        steps = self.batches.steps
        score_text = f", validation {earlier[-1]['score']:.4f}" if earlier else ""
        for step, batch in enumerate(self.batches.epoch(epoch)):
            self.callbacks.on_train_batch_begin(step)
            loss = float(self.step(*_tensors(batch)))
            if not math.isfinite(loss):
                raise self._diverged(f"epoch {epoch + 1}, step {step + 1}", f"loss {loss}")
            self.callbacks.on_train_batch_end(step)
            total += loss
            if (now := time.monotonic()) - told >= _REPORT_EVERY_S:
                told = now
                done = (epoch + (step + 1) / steps) / self.settings.epochs
                text = f"epoch {epoch + 1}/{self.settings.epochs}, loss {total / (step + 1):.4f}{score_text}"
                self.context.report(min(done, 1.0), text)
        self.callbacks.on_epoch_end(epoch)
        return total / steps

    def _validate(self, epoch: int) -> float:
        for variable in self.model.variables:
            if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
                raise self._diverged(f"epoch {epoch + 1}", f"a value that is not finite in {variable.name}")
        answers = predictions(lambda x: self.predict(tf.constant(x)).numpy(), self.data)
        value = score(answers, self.expected, self.values)
        if not math.isfinite(value):
            raise self._diverged(f"epoch {epoch + 1}, validation", "answers that are not finite")
        self.context.report(
            (epoch + 1) / self.settings.epochs, f"epoch {epoch + 1}/{self.settings.epochs}, validation {value:.4f}"
        )
        return value

    def _diverged(self, where: str, got: str) -> QualityGateError:
        return QualityGateError(
            "Training diverged.",
            where=where,
            expected="finite loss and weights",
            got=got,
            remedy=f"lower learning_rate (now {self.settings.learning_rate}), or use optimizer: adam",
        )


def _tensors(batch: Batch) -> tuple[Any, ...]:
    def tensor(value: Any) -> Any:
        return None if value is None else tf.constant(value)

    return tensor(batch.x), tensor(batch.y), tensor(batch.soft), tuple(tf.constant(item) for item in batch.maps)


def _optimizer(settings: Training, steps: int) -> Any:
    """SGD with Nesterov momentum or Adam; linear warm-up over 5 % of the steps, then cosine to zero.

    Weight decay is decoupled from the gradient (Loshchilov and Hutter 2019, algorithms 1 and 2).
    """
    total = steps * settings.epochs
    warm_up = min(steps, int(total * _WARM_UP))
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate * (_START if warm_up else 1.0),
        max(total - warm_up, 1),
        warmup_target=settings.learning_rate if warm_up else None,
        warmup_steps=warm_up,
    )
    options = {"weight_decay": settings.weight_decay or None, "jit_compile": False}
    if settings.optimizer is Optimizer.SGD:
        return keras.optimizers.SGD(schedule, momentum=_MOMENTUM, nesterov=True, **options)
    return keras.optimizers.Adam(schedule, **options)


def _optimizer_variables(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)
