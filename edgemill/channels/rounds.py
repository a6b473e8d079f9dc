"""Remove and train, round by round; a finished round survives a kill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemill.channels import ChannelsSettings
from edgemill.channels.cost import CostModel
from edgemill.channels.groups import ChannelMap, find_groups
from edgemill.channels.importance import scores
from edgemill.channels.plan import plan
from edgemill.channels.reestimate import reestimate
from edgemill.channels.samples import Sampler
from edgemill.channels.surgery import remove
from edgemill.channels.trace import trace
from edgemill.data.dataset import Dataset, SplitName
from edgemill.files import remove as remove_files
from edgemill.files import sync, write_atomically
from edgemill.ingest.export import save_keras
from edgemill.recipe import Training
from edgemill.step import StepContext
from edgemill.tf import fresh, keras, tf
from edgemill.train.loop import Objective, train
from edgemill.train.objective import Answer, answer_kind, checked_labels
from edgemill.train.score import predictions, reference, score


def load(path: Path) -> Any:
    """A tf_keras model, not compiled."""
    return keras.models.load_model(path, compile=False)


class Rounds:
    """All rounds of a run.

    The cost falls by the same factor in every round (as in Frankle and Carbin 2019, for weights), so that every
    round removes the same share of what is there. The last round, which reaches the cost wanted, has twice the
    epochs of the others or more. Steps of whole multiples may reach it earlier: then that round is the last.

    Args:
        settings: of the step.
        data: importance and training on the training split, scores on the validation split.
        objective: what training minimises.
        cost: what a layer costs.
        context: of the step.
        identity: equal for runs of which one may go on where the other was killed.
    """

    def __init__(
        self,
        settings: ChannelsSettings,
        data: Dataset,
        objective: Objective,
        cost: CostModel,
        context: StepContext,
        identity: str,
    ) -> None:
        self._settings, self._data, self._objective, self._cost = settings, data, objective, cost
        self._context, self._identity = context, identity
        self._most = min(settings.rounds, settings.epochs)
        self._early = max(1, settings.epochs // (self._most + 1))

    def go(self, source: Path, whole: float) -> tuple[Path, list[dict[str, Any]]]:
        """Do what is not done yet.

        Args:
            source: model before the first round.
            whole: its cost.

        Returns:
            the model after the last round, and one record a round: `target` (cost), `cost`, `channels` (after it, by
            group), `importance` (by group), `score_before`, `score_removed` (right after channels went),
            `score_reestimated` (with new statistics), `normalizations` (layers that have such), `score` (after
            training), `epochs`, `training` (its history).
        """
        records: list[dict[str, Any]] = []
        now, goal, left = whole, self._settings.keep * whole, self._settings.epochs
        for index in range(self._most):
            record = self._finished(index)
            if record is None:
                record = self._round(index, source, now, goal, left)
                write_atomically(
                    self._context.resume / f"round_{index}.json",
                    json.dumps({"identity": self._identity, "record": record}),
                )
                remove_files(self._folder(index))
            records.append(record)
            source, now, left = self._model(index), record["cost"], left - record["epochs"]
            if left == 0:
                break
        return source, records

    def _model(self, index: int) -> Path:
        return self._context.resume / f"round_{index}.keras"

    def _folder(self, index: int) -> Path:
        return self._context.resume / f"round_{index}"

    def _finished(self, index: int) -> dict[str, Any] | None:
        try:
            found = json.loads((self._context.resume / f"round_{index}.json").read_text(encoding="utf-8"))
            if found["identity"] != self._identity or not self._model(index).exists():
                return None
            record: dict[str, Any] = found["record"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record

    def _round(self, index: int, source: Path, now: float, goal: float, left: int) -> dict[str, Any]:
        told = f"round {index + 1}/{self._most}"
        target = now * (goal / now) ** (1 / (self._most - index))
        total = self._settings.epochs
        start = total - left
        self._context.report(start / total, f"{told}: judging channels")
        # A resumed run comes here without what earlier rounds left behind in the process.
        fresh(self._context.seed + index)
        model = load(source)
        channels = find_groups(trace(model, self._data.sample_shape))
        sampler = Sampler(model, self._data, self._objective, self._context.seed + index)
        judged = scores(self._settings.importance, model, channels, sampler)
        chosen = plan(channels, judged, self._cost, target, self._settings.multiple)
        epochs = left if index + 1 == self._most or chosen.after <= goal else self._early
        before = self._score(model)
        pruned = remove(model, channels, chosen.gone)
        removed = self._score(pruned)
        normalizations = reestimate(pruned, sampler.large())
        reestimated = self._score(pruned)
        record = {
            "target": target,
            "cost": chosen.after,
            "channels": dict(_left(channels, chosen.gone)),
            "importance": {name: str(method) for name, method in judged.measured.items()},
            "score_before": before,
            "score_removed": removed,
            "score_reestimated": reestimated,
            "normalizations": normalizations,
            "epochs": epochs,
        }

        def report(fraction: float | None, message: str) -> None:
            done = start if fraction is None else start + fraction * epochs
            self._context.report(done / total, f"{told}: {message}")

        history = train(
            pruned,
            self._data,
            # The loop knows nothing of channels; its settings are those of all training.
            Training.model_validate(
                {name: getattr(self._settings, name) for name in Training.model_fields} | {"epochs": epochs}
            ),
            self._objective,
            # Another seed in every round: another order of the samples.
            replace(self._context, resume=self._folder(index), report=report, seed=self._context.seed + index),
        )
        temporary = self._context.resume / f".round_{index}.keras"
        save_keras(pruned, temporary)
        sync(temporary)
        temporary.replace(self._model(index))
        return record | {"score": history.best_score, "training": history.record()}

    def _score(self, model: Any) -> float:
        """Validation score, as the training loop has it."""
        kind = answer_kind(model, self._objective.task, self._data)
        values = kind is Answer.VALUES
        outputs = 1
        for extent in model.output_shape[1:]:
            outputs *= extent
        labels = checked_labels(self._objective, kind, self._data, SplitName.VALIDATION, outputs)
        expected = reference(self._objective.teacher, labels, values, self._data)
        predict = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        return score(predictions(lambda x: predict(tf.constant(x)).numpy(), self._data), expected, values)


def _left(channels: ChannelMap, gone: Any) -> Iterator[tuple[str, int]]:
    for group in channels.groups:
        yield group.name, int((~gone[group.atoms]).sum()) * group.unit
