"""From the records of finished steps to the result of a target: screening, gating order, choice, waterfall."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemill.artifact import Artifact
from edgemill.candidate import FP32, Model, candidate_name
from edgemill.errors import EdgemillError, ToolchainError
from edgemill.evidence import Arithmetic, BatchFigure, DeviceFigures, SlowCause, VersionRange
from edgemill.recipe import Budget, Scheme
from edgemill.select import Measured, gate_order, is_telling, outcome, screen
from edgemill.store import StepRecord
from edgemill.summary import Baseline, ChainStep, Interval, Profile, Status, TargetResult, VariantResult
from edgemill.targets import Target
from edgemill.targets.spec import By
from edgemill.validate import Verdict
from edgemill.validate.decide import failed
from edgemill.validate.sequence import run_in_sequence
from edgemill.validate.verdict import Decision, GateFacts

EXPLAINED = ("onnx", "tflite")
"""Kinds of files whose runtime tells where the time went."""


@dataclass
class Attempt:
    """One candidate on one target, filled in as its steps finish.

    Attributes:
        detail: what tells it from another candidate of the same model and scheme.
        quantized: record of the quantize step; None where the model is compiled as it is.
        screened: comparison with the checkpoint on validation data.
        explained: why it is not faster, from the runtime's profile.
        arithmetic: in which arithmetic its answers are computed, and what was done for it.
        versions: whether the oldest runtime of the target answers alike.
        too_big: why it does not fit on the device, where that is known before it answers.
        missing: what could not be had of it, e.g. the figures of a board, and why.
        failure: why it went no further.
    """

    model: Model
    scheme: Scheme | None
    target: Target
    detail: str = ""
    quantized: StepRecord | None = None
    compiled: StepRecord | None = None
    screened: StepRecord | None = None
    measured: StepRecord | None = None
    explained: StepRecord | None = None
    arithmetic: Arithmetic | None = None
    versions: VersionRange | None = None
    too_big: str | None = None
    missing: tuple[str, ...] = ()
    failure: EdgemillError | None = None

    @property
    def name(self) -> str:
        """Name of the candidate."""
        name = candidate_name(self.model.name, self.scheme)
        return f"{name}-{self.detail}" if self.detail else name

    @property
    def subject(self) -> str:
        """For people: candidate and target."""
        return f"{self.name} -> {self.target.name}"

    @property
    def file(self) -> Artifact | None:
        """The compiled file."""
        return None if self.compiled is None else self.compiled.outputs["model"]

    @property
    def answering(self) -> Artifact | None:
        """What answers for the compiled file: the file itself, or what stands for it on this machine."""
        return None if self.compiled is None else answering(self.compiled)

    @property
    def worth_explaining(self) -> bool:
        """Whether it was to be faster, in another number format than fp32, and is not, as far as times here tell."""
        if self.scheme is None or self.measured is None or self.file is None or self.file.kind not in EXPLAINED:
            return False
        profile = _profile(self.measured.facts)
        return is_telling(profile) and profile.speed != "faster"

    @property
    def worth_measuring(self) -> bool:
        """Whether it stands up on validation data."""
        return self.screened is not None and _gate(self.screened).verdict.verdict is not Decision.FAIL


def answering(compiled: StepRecord) -> Artifact:
    """What answers for a compiled file, see `Attempt.answering`."""
    return compiled.outputs.get("executable", compiled.outputs["model"])


@dataclass(frozen=True)
class Reference:
    """The checkpoint's own answers and size, with which everything is compared."""

    model: Model
    validation_score: float | None
    accuracy: Callable[[], float | None]


def judge(
    target: Target,
    attempts: Sequence[Attempt],
    reference: Reference,
    budget: Budget,
    test: Callable[[Attempt], StepRecord],
) -> TargetResult:
    """Screen, gate in a fixed sequence, and choose.

    Args:
        attempts: all candidates of the target.
        test: runs the gate of one attempt on test data; called lazily and in order.
    """
    if target.execution.by is By.NOTHING:
        return TargetResult(
            target=target.name,
            title=target.title,
            variants=tuple(map(_ungated, attempts)),
            unproven=f"{target.runtime.name} does not run here; the files were converted and not judged",
        )
    measured = {attempt.name: attempt for attempt in attempts if attempt.measured is not None}
    if not measured:
        return TargetResult(
            target=target.name,
            title=target.title,
            variants=tuple(map(_ungated, attempts)),
            failure="no candidate fits the device"
            if any(attempt.too_big for attempt in attempts)
            else "no candidate could be measured",
        )
    baseline = _baseline_profile([attempt.measured for attempt in measured.values() if attempt.measured])
    candidates = [_measured(attempt) for attempt in measured.values()]
    kept, dropped = screen(candidates, baseline, target.limits)
    tested: dict[str, StepRecord] = {}

    def verdict_of(name: str) -> Verdict:
        try:
            tested[name] = test(measured[name])
        except ToolchainError as error:
            return failed(budget, 0, f"it cannot be run on test data: {str(error).replace(chr(10) + '  ', '; ')}")
        return _gate(tested[name]).verdict

    order = gate_order(kept)
    verdicts = run_in_sequence([item.name for item in order], verdict_of, budget)
    chosen, _ = outcome(order, verdicts)

    def result_of(attempt: Attempt) -> VariantResult:
        name = attempt.name
        if name in dropped:
            return _variant(attempt, None, Status.DROPPED, dropped[name])
        if name not in verdicts:
            return _ungated(attempt, [item.name for item in kept])
        verdict = verdicts[name]
        if verdict.passed:
            status = Status.SELECTED if chosen is not None and chosen.name == name else Status.PASSED
        else:
            status = Status.FAILED if verdict.verdict is Decision.FAIL else Status.INCONCLUSIVE
        facts = _gate(tested[name]) if name in tested else None
        reason = "" if verdict.passed else verdict.reason
        return _variant(attempt, facts, status, reason).model_copy(update={"verdict": verdict})

    onnx = reference.model.files["onnx"]
    result = TargetResult(
        target=target.name,
        title=target.title,
        source=baseline.source,
        baseline=Baseline(
            digest=onnx.digest,
            profile=baseline,
            validation_score=reference.validation_score,
            accuracy=reference.accuracy() if tested else None,
        ),
        variants=tuple(result_of(attempt) for attempt in attempts),
    )
    return _with_chains(result, attempts, reference)


def _gate(record: StepRecord) -> GateFacts:
    return GateFacts.model_validate(record.facts)


def _ungated(attempt: Attempt, fitting: Sequence[str] = ()) -> VariantResult:
    if attempt.too_big is not None:
        others = f"; {', '.join(fitting)} would fit" if fitting else "; no candidate fits"
        return _variant(attempt, None, Status.DROPPED, attempt.too_big + others)
    if attempt.failure is not None:
        return _variant(attempt, None, Status.FAILED, str(attempt.failure).replace("\n  ", "; "))
    if attempt.screened is None:
        return _variant(attempt, None, Status.UNPROVEN, "converted; nothing here can run it")
    return _variant(attempt, None, Status.DROPPED, f"on validation data {_gate(attempt.screened).verdict.reason}")


def _profile(facts: Mapping[str, Any]) -> Profile:
    device = facts.get("device")
    return Profile(
        size_bytes=facts["size_bytes"],
        compressed_bytes=facts["compressed_bytes"],
        source=facts["source"],
        latency_p50_ms=facts["latency_p50_ms"],
        transfer_bytes=facts["transfer_bytes"],
        device=None if device is None else DeviceFigures.model_validate(device),
        **(_timed(facts) if device is None else {}),
    )


def _timed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What is known only where times were taken."""
    return {
        "latency_p95_ms": facts["latency_p95_ms"],
        "latency_p99_ms": facts["latency_p99_ms"],
        "rounds": facts["rounds_counted"],
        "stopped": facts["stopped"],
        "throughput_per_s": facts["throughput_per_s"],
        "cold_start_ms": facts["cold_start_ms"],
        "batches": tuple(BatchFigure.model_validate(item) for item in facts["batches"]),
        "arena_bytes": facts["arena_bytes"],
        "energy_mj": facts.get("energy_mj"),
        "energy_source": facts.get("energy_source"),
        "energy_estimate_mj": facts.get("energy_estimate_mj"),
        "latency_ratio": Interval(
            estimate=facts["ratio"],
            lower=facts["ratio_lower"],
            upper=facts["ratio_upper"],
            confidence=facts["ratio_confidence"],
        ),
        "peak_rss_bytes": facts["peak_rss_bytes"],
    }


def _baseline_profile(records: Sequence[StepRecord]) -> Profile:
    def middle(name: str) -> Any:
        return statistics.median(record.facts[name] for record in records)

    first = records[0].facts
    if "device" in first:
        return Profile(
            size_bytes=first["baseline_size_bytes"],
            compressed_bytes=first["baseline_compressed_bytes"],
            transfer_bytes=first["baseline_transfer_bytes"],
            source=first["source"],
        )
    return Profile(
        size_bytes=first["baseline_size_bytes"],
        compressed_bytes=first["baseline_compressed_bytes"],
        source=first["source"],
        latency_p50_ms=middle("baseline_p50_ms"),
        latency_p95_ms=middle("baseline_p95_ms"),
        latency_p99_ms=middle("baseline_p99_ms"),
        throughput_per_s=middle("baseline_throughput_per_s"),
        cold_start_ms=middle("baseline_cold_start_ms"),
        transfer_bytes=first["baseline_transfer_bytes"],
        arena_bytes=first["baseline_arena_bytes"],
        peak_rss_bytes=int(middle("baseline_peak_rss_bytes")),
    )


def _measured(attempt: Attempt) -> Measured:
    assert attempt.measured is not None
    assert attempt.screened is not None
    screened = _gate(attempt.screened)
    return Measured(
        name=attempt.name,
        profile=_profile(attempt.measured.facts),
        screen=screened.verdict,
        drop_upper=screened.main.upper,
        score=screened.accuracy if screened.accuracy is not None else 0.0,
    )


def _variant(attempt: Attempt, facts: GateFacts | None, status: Status, reason: str) -> VariantResult:
    file = attempt.file
    screened = None if attempt.screened is None else _gate(attempt.screened)
    return VariantResult(
        target=attempt.target.name,
        candidate=attempt.name,
        scheme=FP32 if attempt.scheme is None else attempt.scheme.value,
        digest=None if file is None else file.digest,
        kind=None if file is None else file.kind,
        signature=None if file is None else file.signature,
        profile=None if attempt.measured is None else _profile(attempt.measured.facts),
        validation_score=None if screened is None else screened.accuracy,
        validation_drop=None if screened is None else screened.main.estimate,
        validation_drop_upper=None if screened is None else screened.main.upper,
        accuracy=None if facts is None else facts.accuracy,
        verdict=None if facts is None else facts.verdict,
        lost=None if facts is None else facts.lost,
        won=None if facts is None else facts.won,
        flip_rate=None if facts is None else facts.flip_rate,
        checks=() if facts is None else facts.checks,
        groups=() if facts is None else facts.groups,
        arithmetic=attempt.arithmetic,
        versions=attempt.versions,
        slow_because=_causes(attempt),
        missing=attempt.missing,
        status=status,
        reason=reason,
    )


def _causes(attempt: Attempt) -> tuple[SlowCause, ...]:
    if attempt.explained is None:
        return ()
    known = SlowCause.model_fields
    return tuple(
        SlowCause.model_validate({key: value for key, value in cause.items() if key in known})
        for cause in attempt.explained.facts["causes"]
    )


# -- the waterfall -------------------------------------------------------------------------------


def _with_chains(result: TargetResult, attempts: Sequence[Attempt], reference: Reference) -> TargetResult:
    by_name = {variant.candidate: variant for variant in result.variants}
    assert result.baseline is not None
    start = _chain_step(
        "ingest", "ingest.checkpoint", "checkpoint, fp32", result.baseline.digest, reference.validation_score,
        result.baseline.profile, result.baseline.profile,
    )  # fmt: skip
    variants = []
    for attempt in attempts:
        steps = [start]
        for link in attempt.model.chain:
            after = by_name.get(candidate_name(link.model, None))
            steps.append(_link_step(link.stage, link.step, link.title, after, result.baseline.profile))
        if attempt.scheme is not None and attempt.quantized is not None:
            own = by_name[attempt.name]
            steps.append(
                _link_step("quantize", attempt.quantized.step, attempt.scheme.value, own, result.baseline.profile)
            )
        variants.append(by_name[attempt.name].model_copy(update={"chain": tuple(steps)}))
    return result.model_copy(update={"variants": tuple(variants)})


def _link_step(stage: str, step: str, title: str, variant: VariantResult | None, baseline: Profile) -> ChainStep:
    if variant is None:
        return ChainStep(stage=stage, step=step, title=title)
    return _chain_step(stage, step, title, variant.digest, variant.validation_score, variant.profile, baseline)


def _chain_step(
    stage: str,
    step: str,
    title: str,
    digest: str | None,
    score: float | None,
    profile: Profile | None,
    baseline: Profile,
) -> ChainStep:
    latency = None if profile is None else profile.latency_p50_ms
    if profile is not None and profile.latency_ratio is not None and baseline.latency_p50_ms is not None:
        # on the common scale of the baseline: ratios are steadier than times of separate runs
        latency = profile.latency_ratio.estimate * baseline.latency_p50_ms
    return ChainStep(
        stage=stage,
        step=step,
        title=title,
        digest=digest,
        score=score,
        size_bytes=None if profile is None else profile.size_bytes,
        compressed_bytes=None if profile is None else profile.compressed_bytes,
        latency_p50_ms=latency,
    )
