"""What the gate says of a candidate on the validation samples: through the runtime, or on a few samples only."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemill.artifact import Artifact, digest_path, size_of
from edgemill.data.dataset import Dataset, SplitName
from edgemill.quantize import MixedSettings
from edgemill.recipe import Task
from edgemill.runtimes import open_model
from edgemill.step import InputFile, StepContext
from edgemill.validate import GateSettings, PredictSettings, gate, predict
from edgemill.validate.scores import flat_rows
from edgemill.validate.verdict import GateFacts

Answers = NDArray[np.float32]

_CLASSES = (Task.CLASSIFICATION, Task.UNLABELLED)


class Judge:
    """Compares candidates with the checkpoint by the recipe's own gate, on the validation split.

    Attributes:
        evaluations: record of every full pass, in order.
        reference: float32 (N, ...), the checkpoint's answers.
    """

    def __init__(self, settings: MixedSettings, data: InputFile, checkpoint: Path, context: StepContext) -> None:
        """Answer the validation samples with the checkpoint.

        Args:
            settings: task, budget and further gates.
            data: dataset.
            checkpoint: fp32 ONNX.
            context: seed; a folder below its `out` is used and must be removed with `close`.

        Raises:
            DataError: the validation split is empty.
        """
        self._settings, self._data, self._seed = settings, data, context.seed
        self._dataset = Dataset(data.path)
        self._folder = context.out / "judge"
        self._folder.mkdir()
        self.evaluations: list[dict[str, Any]] = []
        self.reference = self._predict(checkpoint)
        self._note("checkpoint", None)

    def close(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def full(self, what: str, path: Path, **details: Any) -> tuple[GateFacts, Answers]:
        """One pass over all validation samples.

        Args:
            what: kind of the evaluation, for the record.
            path: ONNX file of the candidate.
            details: more for the record.

        Returns:
            the gate's facts, and the answers, float32 (N, ...).
        """
        answers = self._predict(path)
        facts = self.compare(answers)
        self._note(what, facts, **details)
        return facts, answers

    def compare(self, answers: Answers) -> GateFacts:
        """What the gate says of these answers."""
        context = self._context("gate")
        np.save(context.out / "baseline.npy", self.reference, allow_pickle=False)
        np.save(context.out / "variant.npy", answers, allow_pickle=False)
        inputs = {name: _input(context.out / f"{name}.npy", "predictions") for name in ("baseline", "variant")}
        rules = GateSettings(
            split=SplitName.VALIDATION,
            task=self._settings.task,
            budget=self._settings.budget,
            gates=self._settings.gates,
        )
        return GateFacts.model_validate(gate.run(rules, inputs | {"data": self._data}, context).facts)

    def glance(self, path: Path, samples: NDArray[np.int64]) -> bool:
        """Whether a candidate would pass if all samples but the given ones were answered as by the checkpoint."""
        answers = self.reference.copy()
        answers[samples] = open_model(path, "onnx").predict(self.features(samples)).reshape(answers[samples].shape)
        return self.compare(answers).verdict.passed

    def features(self, samples: NDArray[np.int64]) -> NDArray[np.float32]:
        """Inputs of some validation samples."""
        stored = self._dataset.raw(SplitName.VALIDATION)
        return self._dataset.prepare(stored[samples])

    def at_risk(self, answers: Answers, count: int) -> NDArray[np.int64]:
        """Validation samples on which a candidate most nearly gives, or gives, another answer than the checkpoint.

        Sorted by how far the outputs moved; where they are scores of classes, as a share of the checkpoint's
        lead of the best class over the second: what is beyond 1 may have changed the class.

        Args:
            answers: float32 (N, ...), finite or not.
            count: how many.

        Returns:
            their places, the ones most at risk first.
        """
        right = flat_rows(self.reference).astype(np.float64)
        with np.errstate(all="ignore"):
            risk = np.sqrt(((flat_rows(answers) - right) ** 2).sum(axis=1))
            if self._settings.task in _CLASSES and right.shape[1] > 1:
                best = np.partition(right, -2, axis=1)[:, -2:]
                risk = risk / (best[:, 1] - best[:, 0])
        chosen: NDArray[np.int64] = np.argsort(-np.nan_to_num(risk, nan=np.inf), kind="stable")[:count]
        return chosen

    def _predict(self, path: Path) -> Answers:
        context = self._context("predict")
        rules = PredictSettings(split=SplitName.VALIDATION, task=self._settings.task)
        made = predict.run(rules, {"model": _input(path, "onnx"), "data": self._data}, context)
        answers: Answers = np.array(np.load(made.files["predictions"].path, allow_pickle=False))
        return answers

    def _context(self, name: str) -> StepContext:
        out = self._folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return StepContext(out, out, self._seed, lambda fraction, message: None)

    def _note(self, what: str, facts: GateFacts | None, **details: Any) -> None:
        numbers = {}
        if facts is not None:
            verdict = facts.verdict
            numbers = {
                "decision": str(verdict.verdict),
                "estimate": verdict.estimate,
                "upper": verdict.upper,
                "margin": verdict.margin,
                "n": verdict.n,
                "accuracy": facts.accuracy,
                "lost": facts.lost,
                "won": facts.won,
            }
        self.evaluations.append({"what": what} | details | numbers)


def _input(path: Path, kind: str) -> InputFile:
    artifact = Artifact(
        digest=digest_path(path), filename=path.name, kind=kind, size_bytes=size_of(path), step="quantize.mixed"
    )
    return InputFile(path, artifact)
