"""Run the gate on a model file that Edgemill need not have made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edgemill.artifact import Artifact
from edgemill.data import SplitName
from edgemill.data.call import load_call
from edgemill.emulate.machine import Machine, how_executed
from edgemill.errors import CheckpointError, DataError, RecipeError, ToolchainError
from edgemill.execute import Call, execute
from edgemill.gate.report import GateReport
from edgemill.ingest.call import ingest_call
from edgemill.ingest.companions import checkpoint_files
from edgemill.ingest.detect import Format, detect
from edgemill.lack import commands
from edgemill.recipe import Recipe
from edgemill.step import tool_versions
from edgemill.store import StepRecord, Store
from edgemill.targets import Target, load_target, target_names
from edgemill.targets.spec import By
from edgemill.toolchains import installed
from edgemill.validate.call import compare_call, predict_call
from edgemill.validate.decide import failed
from edgemill.validate.verdict import GateFacts

Report = Callable[[float | None, str], None]

_KINDS = {Format.ONNX: "onnx", Format.TFLITE: "tflite"}
_TFLITE_MICRO = "tflite-micro"
_RUNTIMES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
_TOOLS = ("edgemill", "onnxruntime", "ai-edge-litert", "numpy")


def check_model(
    store: Store, recipe: Recipe, model: Path, target: Target | None, command: str, report: Report
) -> GateReport:
    """Hold a model file against the recipe's checkpoint on the test split.

    A model that cannot be loaded or run is not an error of this function: the report says FAIL and why.

    Args:
        store: where finished steps are kept; a second gate of the same checkpoint reuses its answers.
        recipe: checkpoint, data, task, budget and gates; its stages and targets do not matter here.
        model: ONNX or TFLite file, in any number format.
        target: in whose arithmetic the model answers; None: this machine's.
        command: for the report: how to do this again.
        report: told of progress.

    Raises:
        RecipeError: the model is missing or of a kind that no runtime here loads, or the target runs other files.
        ToolchainError: what answers for the target is not installed.
        EdgemillError: the checkpoint or the data are at fault.
    """
    started = datetime.now(UTC)
    artifact = _take_in(store, model, target)
    machine = None if target is None else _machine(target)

    def run(call: Call, text: str) -> StepRecord:
        report(None, text)
        return execute(store, call, lambda fraction, message: report(fraction, f"{text}: {message}")).record

    data = run(load_call(recipe), "data").outputs["data"]
    ingested = run(ingest_call(store, recipe.checkpoint, data, recipe.seed), "checkpoint")
    onnx = ingested.outputs["onnx"]
    baseline = run(predict_call(onnx, recipe, data, SplitName.TEST), "checkpoint's answers")
    samples, source, note = int(baseline.facts["samples"]), str(baseline.facts["source"]), ""
    try:
        answers = run(predict_call(artifact, recipe, data, SplitName.TEST, machine), "model's answers")
    except (ToolchainError, DataError) as error:
        facts = _cannot_run(recipe, samples, float(baseline.facts.get("score", 0.0)), str(error))
    else:
        source, note = str(answers.facts["source"]), str(answers.facts["reason"])
        predictions = answers.outputs["predictions"], baseline.outputs["predictions"]
        judged = run(compare_call(*predictions, recipe, data, SplitName.TEST), "gate")
        facts = GateFacts.model_validate(judged.facts)
    return GateReport(
        name=recipe.name,
        task=recipe.task,
        model=model.name,
        digest=artifact.digest,
        kind=artifact.kind,
        size_bytes=artifact.size_bytes,
        checkpoint_digest=ingested.inputs["checkpoint"],
        data_digest=data.digest,
        samples=samples,
        source=source,
        note=note,
        facts=facts,
        versions=tool_versions(_TOOLS),
        command=command,
        started=started,
        finished=datetime.now(UTC),
    )


def _take_in(store: Store, model: Path, target: Target | None) -> Artifact:
    try:
        kind = _KINDS.get(detect(model))
        if kind is None:
            raise RecipeError(
                "This kind of file does not ship to a device.",
                where=str(model),
                expected="an ONNX or TFLite model",
                got=str(detect(model)),
                remedy="`edgemill optimize` makes such files from a checkpoint",
            )
        with checkpoint_files(model, 1 << 40) as files:
            if files.is_dir():
                raise RecipeError(
                    "The model keeps its weights in other files.",
                    where=str(model),
                    expected="one file",
                    remedy="save it with its weights inside: onnx.save(onnx.load(path), new_path)",
                )
            return store.put(files, kind=_answered_as(kind, model, target), step="gate.model")
    except CheckpointError as error:
        raise RecipeError(
            f"The model cannot be read. {error.what}",
            where=str(model),
            expected="an ONNX or TFLite model",
            got=error.got,
            remedy=error.remedy,
        ) from error


def _machine(target: Target) -> Machine:
    """What answers for a target; what is missing here is no fault of the model.

    Raises:
        ToolchainError: the toolchain that answers is not installed.
    """
    machine = how_executed(target)
    if machine.toolchain is not None and (lacks := installed(machine.toolchain).lacks):
        raise ToolchainError(
            f"{target.name} cannot be answered for on this machine.",
            got="; ".join(lack.what for lack in lacks),
            remedy=" && ".join(commands(lacks)),
        )
    return machine


def _answered_as(kind: str, model: Path, target: Target | None) -> str:
    """The kind of file as which a model is loaded.

    Raises:
        RecipeError: the target does not load such files itself; what it ships is made by `edgemill optimize`.
    """
    if target is None:
        return kind
    if (found := _loads(target, kind)) is not None:
        return found
    fitting = ", ".join(name for name in target_names() if _loads(load_target(name), kind) is not None)
    raise RecipeError(
        f"{target.name} does not run {kind} files as they are.",
        where=str(model),
        expected=f"a target of {fitting}",
        got=f"{target.name}, runtime {target.runtime.name}",
        remedy="leave --target out, or let `edgemill optimize` make and gate the target's own file",
    )


def _loads(target: Target, kind: str) -> str | None:
    """As what a target loads ONNX or TFLite files; None where it does not."""
    execution = target.execution
    if execution.by is By.RUNTIME and target.runtime.name == _RUNTIMES[kind]:
        return kind
    if kind == "tflite" and execution.by is By.REFERENCE and execution.name == _TFLITE_MICRO:
        return _TFLITE_MICRO  # the reference kernels of microcontrollers, and of NPUs that give the same integers
    return None


def _cannot_run(recipe: Recipe, samples: int, baseline_score: float, why: str) -> GateFacts:
    verdict = failed(recipe.budget, samples, f"the model cannot be run: {'; '.join(why.split(chr(10) + '  '))}")
    return GateFacts(verdict=verdict, checks=(verdict,), baseline_accuracy=baseline_score, fault="cannot_run")
