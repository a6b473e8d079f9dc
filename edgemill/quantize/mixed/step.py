"""Step `quantize.mixed`: int8 but for the few operators without which the model would not pass its gate."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgemill.data.dataset import Dataset, SplitName
from edgemill.errors import DataError, QualityGateError
from edgemill.quantize import MixedSettings
from edgemill.quantize.mixed.candidates import Candidates, Sensitivity
from edgemill.quantize.mixed.groups import with_islands
from edgemill.quantize.mixed.judge import Judge
from edgemill.quantize.mixed.narrow import four_bit_groups, to_four_bits, to_half
from edgemill.quantize.mixed.search import Wide, fewest, put_back
from edgemill.quantize.mixed.source import Source, read
from edgemill.quantize.static import describe, unhelpful
from edgemill.recipe import Wider
from edgemill.runtimes import open_model
from edgemill.step import InputFile, OutputFile, Outputs, StepContext
from edgemill.validate.verdict import Decision, GateFacts

_REASON = "float, because the gate does not pass with it in int8"
_FOUR = "4-bit weights and float activations, which the gate passes"


def run(settings: MixedSettings, inputs: Mapping[str, InputFile], context: StepContext) -> Outputs:
    """Quantize an ONNX graph as far as the gate allows on the validation samples.

    Args:
        settings: arithmetic, calibration, and what must be proven.
        inputs: `onnx` (fp32), `data`, and `checkpoint` (fp32 ONNX) where it is another file than `onnx`.
        context: folders, seed, progress.

    Returns:
        file `onnx`; facts of `quantize.static`, and `outcome` (int8: everything is int8 and passes; mixed),
        `evaluations` (every pass over the validation samples with its numbers), `glances` (passes over a few
        of them), `groups` (name, nodes, noise, wide; most harmful first), `restored` and `reverted` (names of
        groups that are float, and that were for a while), `wide_nodes`, `int4_nodes`, `fp16_weights`;
        with `settings.repair`, `repairs`.

    Raises:
        QualityGateError: no candidate with an int8 operator passes.
        DataError: a split is empty, or labels are broken.
        ToolchainError: onnxruntime fails, or nothing in the graph can be int8.
    """
    data = Dataset(inputs["data"].path)
    if data.sizes[SplitName.VALIDATION] == 0:
        raise DataError(
            "The validation split is empty; int8_mixed judges its candidates there.",
            where="data.split.validation",
            remedy="give it some samples",
        )
    with tempfile.TemporaryDirectory(dir=context.out) as name:
        return _run(settings, inputs, data, Path(name), context)


def _run(
    settings: MixedSettings, inputs: Mapping[str, InputFile], data: Dataset, folder: Path, context: StepContext
) -> Outputs:
    source = read(settings, inputs["onnx"].path, data, folder, context)
    reference = inputs.get("checkpoint", inputs["onnx"])
    context.report(0.2, "answers of the checkpoint on the validation samples")
    judge = Judge(settings, inputs["data"], reference.path, context)
    target = context.out / "model.onnx"
    try:
        candidates = Candidates(source, judge, folder, settings.evaluations)
        wide, ranking, reverted = _search(inputs, candidates, judge, folder, context)
        context.report(0.93, "narrower weights")
        narrowed = _narrow(settings, source, candidates, wide, folder, target)
    finally:
        judge.close()
    context.report(0.97, "reading the optimized graph")
    facts = describe(target, source.ranges, source.how)
    _explain(facts, candidates, wide, narrowed)
    if settings.repair:
        facts["repairs"] = source.repairs + narrowed.repairs
        facts["warnings"] += unhelpful(facts["repairs"])
    groups = source.groups
    facts |= {
        "outcome": "mixed" if wide else "int8",
        "evaluations": judge.evaluations,
        "glances": candidates.glances,
        "groups": [_record(candidates, item, wide) for item in ranking],
        "restored": [groups[index].name for index in sorted(wide)],
        "reverted": [groups[index].name for index in reverted],
        "wide_nodes": list(candidates.nodes(wide)),
        "int4_nodes": narrowed.four,
        "fp16_weights": narrowed.half,
    }
    return Outputs({"onnx": OutputFile(target, "onnx", open_model(target, "onnx").signature)}, facts)


def _search(
    inputs: Mapping[str, InputFile], candidates: Candidates, judge: Judge, folder: Path, context: StepContext
) -> tuple[Wide, tuple[Sensitivity, ...], list[int]]:
    """Groups that stay float, all groups by what int8 costs in them, and those that were float for a while."""
    context.report(0.25, "everything int8")
    worst = folder / "int8.onnx"
    candidates.make(frozenset(), worst)
    facts, answers = judge.full("int8", worst, wide=[])
    if facts.verdict.passed:
        return frozenset(), (), []
    count = len(candidates.groups)
    _check_float(inputs, judge, facts, count)
    candidates.look_at(answers)
    ranking = candidates.rank(lambda f, m: context.report(0.3 + 0.3 * (f or 0.0), m))
    order = [item.group for item in ranking]
    context.report(0.6, "searching for the fewest float operators that pass")
    found = with_islands(candidates.groups, fewest(order, candidates))
    if len(found) == count:
        raise QualityGateError(
            "Nothing in int8 passes on the validation samples.",
            where="scheme int8_mixed",
            expected=f"a pass with some of {count} groups of operators in int8",
            got=f"no pass within {len(judge.evaluations)} evaluations",
            remedy="use int8_qat, distill into a student, raise stages.quantize.mixed.evaluations, or give the "
            "repairs of stages.quantize.repair",
        )
    context.report(0.85, "putting operators back to int8")
    wide = with_islands(candidates.groups, put_back(order, found, candidates))
    return wide, ranking, sorted(found - wide)


@dataclass(frozen=True)
class _Narrowed:
    """What was written.

    Attributes:
        groups: with 4-bit weights.
        four: names of their operators with such weights.
        half: names of weights that are float16.
        repairs: records of the repairs of the QDQ graph.
    """

    groups: Wide
    four: list[str]
    half: list[str]
    repairs: list[dict[str, Any]]


def _explain(facts: dict[str, Any], candidates: Candidates, wide: Wide, narrowed: _Narrowed) -> None:
    """Say why operators are float that could be int8; what is meant is no warning."""
    reasons = dict.fromkeys(candidates.nodes(narrowed.groups), _FOUR) | dict.fromkeys(candidates.nodes(wide), _REASON)
    reasons |= dict.fromkeys(narrowed.four, _FOUR)
    added = {f"{name}_float/Cast" for name in narrowed.half}
    facts["float_nodes"] = {
        name: reasons.get(name, reason) for name, reason in facts["float_nodes"].items() if name not in added
    }
    facts["warnings"] = [text for text in facts["warnings"] if text.split(" ")[1] not in reasons]


def _narrow(
    settings: MixedSettings, source: Source, candidates: Candidates, wide: Wide, folder: Path, target: Path
) -> _Narrowed:
    """Write the result, with 4-bit and float16 weights where they were asked for and pass."""
    kept = _Narrowed(frozenset(), [], [], candidates.make(wide, target))
    tried = four_bit_groups(source.model, candidates.groups) if settings.int4_weights else ()
    file = folder / "narrowed.onnx"
    while tried and candidates.left:
        groups = frozenset(tried)
        repairs = candidates.make(wide | groups, file)
        model = onnx.load(str(file))
        done = to_four_bits(model, [name for index in tried for name in candidates.groups[index].nodes])
        onnx.save(model, str(file))
        if candidates.judge_file(file, "int4", nodes=done):
            kept = _Narrowed(groups, done, [], repairs)
            file.replace(target)
            break
        tried = tried[: len(tried) // 2]
    if Wider.FP16 in settings.wider and wide and candidates.left:
        model = onnx.load(str(target))
        done = to_half(model, candidates.nodes(wide))
        onnx.save(model, str(file))
        if done and candidates.judge_file(file, "fp16", tensors=done):
            kept = replace(kept, half=done)
            file.replace(target)
    return kept


def _check_float(inputs: Mapping[str, InputFile], judge: Judge, worst: GateFacts, count: int) -> None:
    """The best that mixed precision can give is the float model: it must pass, or the search has no end.

    Raises:
        QualityGateError: it does not.
    """
    own = inputs["onnx"]
    reference = inputs.get("checkpoint", own)
    if reference.artifact.digest == own.artifact.digest:
        facts = judge.compare(judge.reference)
    else:
        facts, _ = judge.full("float", own.path, wide="all")
    best = facts.verdict
    if best.passed:
        return
    if best.verdict is Decision.INCONCLUSIVE:
        needed = f"about {best.samples_needed:,}" if best.samples_needed else "more"
        raise QualityGateError(
            "The validation samples are too few to prove that any candidate of int8_mixed passes.",
            where="data.split.validation",
            expected=f"{needed} samples, for the float model itself to pass",
            got=f"{best.n}: {best.reason}",
            remedy="give data.split.validation more samples, or a larger budget.max_accuracy_drop; else distillation "
            "or int8_qat, which need no proof before the gate",
        )
    raise QualityGateError(
        "Mixed precision cannot pass: not even with every operator in float.",
        where="scheme int8_mixed",
        expected=f"a loss of less than {best.margin:g} before anything is quantized",
        got=f"{best.gate}: {best.reason} (everything in int8: {worst.verdict.reason})",
        remedy="train what was lost before quantization: distill longer or into a wider student, prune less, or use "
        "int8_qat",
    )


def _record(candidates: Candidates, item: Sensitivity, wide: Wide) -> dict[str, Any]:
    group = candidates.groups[item.group]
    noise = item.noise if item.noise < float("inf") else None
    return {"name": group.name, "nodes": list(group.nodes), "noise": noise, "wide": item.group in wide}
