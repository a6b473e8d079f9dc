"""Numbers and words of the report, the same in HTML, Markdown and the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from edgemill.evidence import VersionRange
from edgemill.recipe import Task
from edgemill.search.record import SearchRecord
from edgemill.select import is_telling
from edgemill.summary import Baseline, ChainStep, Interval, Profile, Status, TargetResult, VariantResult
from edgemill.validate.verdict import Verdict

NONE = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
_RANK = {
    Status.SELECTED: 0,
    Status.PASSED: 1,
    Status.INCONCLUSIVE: 2,
    Status.FAILED: 3,
    Status.UNPROVEN: 4,
    Status.DROPPED: 5,
}
_SCORE_NAMES = {
    Task.CLASSIFICATION: "accuracy",
    Task.REGRESSION: f"{MINUS}mean abs. error",
    Task.ANOMALY: "AUC",
    Task.UNLABELLED: "agreement",
}


def score_name(task: Task) -> str:
    """What the score of a task is called."""
    return _SCORE_NAMES[task]


def ordered(target: TargetResult) -> list[VariantResult]:
    """Variants as listed everywhere: selected, passed, undecided, failed, dropped; each fastest first."""

    def key(variant: VariantResult) -> tuple[int, float, str]:
        ratio = variant.profile.latency_ratio if variant.profile else None
        return _RANK[variant.status], ratio.estimate if ratio else float("inf"), variant.candidate

    return sorted(target.variants, key=key)


def bytes_text(value: float | None) -> str:
    """Bytes in SI units with three significant digits, e.g. `718 kB`."""
    if value is None:
        return NONE
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB"):
        if abs(amount) < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or abs(amount) >= 99.95 else f"{amount:.3g} {unit}"


def time_text(milliseconds: float | None) -> str:
    """A time with three significant digits in ms, or in µs below 1 ms."""
    if milliseconds is None:
        return NONE
    amount, unit = (milliseconds * 1000, "µs") if milliseconds < 1 else (milliseconds, "ms")
    return f"{amount:,.0f} {unit}" if amount >= 99.95 else f"{amount:.3g} {unit}"


def score_text(value: float | None, task: Task) -> str:
    """A score: percent with two decimals, or four significant digits for a regression."""
    if value is None:
        return NONE
    return f"{value:.4g}".replace("-", MINUS) if task is Task.REGRESSION else f"{100 * value:.2f} %"


def drop_text(value: float | None, task: Task) -> str:
    """A drop or margin: points (hundredths) with sign, or the unit of the score for a regression."""
    if value is None:
        return NONE
    text = f"{value:+.4g}" if task is Task.REGRESSION else f"{100 * value + 0.0:+.2f} pt"
    return text.replace("-", MINUS)


def margin_text(value: float, task: Task) -> str:
    """A margin, without sign."""
    return f"{value:.4g}" if task is Task.REGRESSION else f"{100 * value:.4g} pt"


def ratio_text(ratio: Interval | None) -> str:
    """A ratio of times with its interval, e.g. `0.293 (0.288 to 0.301)`."""
    return NONE if ratio is None else f"{ratio.estimate:.3f} ({range_text(ratio)})"


def range_text(interval: Interval) -> str:
    """The ends of an interval with three decimals."""
    return f"{interval.lower:.3f}{NONE}{interval.upper:.3f}"


def mixed_sources(target: TargetResult) -> bool:
    """Whether times of several provenances stand in one table, so that each row must name its own (design rule 7)."""
    sources = {variant.profile.source for variant in target.variants if variant.profile is not None}
    return len(sources | ({target.baseline.profile.source} if target.baseline else set())) > 1


def times_text(factor: float | None) -> str:
    """A factor with a multiplication sign."""
    return NONE if factor is None else f"{factor:.3g}\N{MULTIPLICATION SIGN}"


def speedup(profile: Profile | None) -> float | None:
    """Baseline time / variant time; None where the times say nothing of the target."""
    ratio = profile.latency_ratio if profile is not None and is_telling(profile) else None
    return 1 / ratio.estimate if ratio is not None and ratio.estimate > 0 else None


def shrinkage(profile: Profile | None, baseline: Baseline | None) -> float | None:
    """Compressed bytes of the baseline / those of the variant."""
    if profile is None or baseline is None or profile.compressed_bytes == 0:
        return None
    return baseline.profile.compressed_bytes / profile.compressed_bytes


def count_text(value: int | None) -> str:
    """A count with thousands separators."""
    return NONE if value is None else f"{value:,}"


def share_text(value: float | None) -> str:
    """A share as a percentage that shows 100 % only where it is all."""
    if value is None:
        return NONE
    return "100 %" if value == 1 else f"{min(100 * value, 99.99):.4g} %"


def has_foreign_arithmetic(target: TargetResult) -> bool:
    """Whether answers of some variant were not, or not only, computed natively."""
    return any(item.arithmetic is not None and item.arithmetic.is_notable for item in target.variants)


def versions_text(found: VersionRange | None) -> str:
    """Whether the range of runtime versions is proven, one sentence; empty where there is nothing to prove."""
    if found is None:
        return ""
    if found.missing:
        return f"{found.runtime} {found.oldest} to {found.newest}: not proven, {found.missing}"
    same = "" if found.agreement is None else f", {share_text(found.agreement)} with the same answer"
    return f"{found.runtime} {found.oldest} and {found.newest} both ran it on {found.compared} samples{same}"


def duration_text(seconds: float) -> str:
    """A duration, e.g. `5 min 46 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def source_note(source: str | None) -> str:
    """One sentence on what times of this provenance are worth; empty for the target's own times."""
    kind = (source or "").partition(":")[0]
    notes = {
        "proxy": "Times come from another machine than the target. Compare them with each other, not with a device.",
        "unlike": "Times come from a machine on which these files run in another way; they say nothing of the target.",
        "emulated": "Times come from an emulator and say nothing of a device.",
        "simulated": "Times come from a simulator of the target.",
        "untimed": "No time can be taken here; sizes and memory are what the device's own tools say.",
        "estimated": "Times are estimates, not measurements.",
    }
    return notes.get(kind, "")


def bound_text(verdict: Verdict | None, task: Task) -> str:
    """Upper bound of the drop, e.g. `≤ +0.45 pt`."""
    return NONE if verdict is None or verdict.upper is None else f"≤ {drop_text(verdict.upper, task)}"


@dataclass(frozen=True)
class StepRow:
    """One line of the way from the checkpoint to the selected file.

    Attributes:
        title: for people.
        score: on validation data after the step; like all figures, None where not measured.
        compressed_bytes: after the step.
        latency_ms: median, after the step.
        score_lost: against the last line above that has a score; as are the gains.
        bytes_gained: compressed.
        time_gained: in ms.
        share: compressed bytes as a share of the largest in the chain, 0..1.
    """

    title: str
    score: float | None
    compressed_bytes: int | None
    latency_ms: float | None
    score_lost: float | None
    bytes_gained: float | None
    time_gained: float | None
    share: float


def waterfall(target: TargetResult) -> list[StepRow]:
    """What every step of the selected chain cost and gained, the baseline first."""
    chosen = target.selected_variant
    if chosen is None:
        return []
    steps = list(chosen.chain)
    if target.baseline is not None:
        steps = [step for step in steps if step.stage != "ingest"]
        steps.insert(0, _start(target.baseline))
    largest = max((step.compressed_bytes or 0 for step in steps), default=0)
    before: dict[str, float] = {}
    rows = []
    for step in steps:
        rows.append(
            StepRow(
                title=step.title,
                score=step.score,
                compressed_bytes=step.compressed_bytes,
                latency_ms=step.latency_p50_ms,
                score_lost=_less(before.get("score"), step.score),
                bytes_gained=_less(before.get("bytes"), step.compressed_bytes),
                time_gained=_less(before.get("time"), step.latency_p50_ms),
                share=(step.compressed_bytes or 0) / largest if largest else 0.0,
            )
        )
        figures = {"score": step.score, "bytes": step.compressed_bytes, "time": step.latency_p50_ms}
        before |= {name: value for name, value in figures.items() if value is not None}
    return rows


def _start(baseline: Baseline) -> ChainStep:
    return ChainStep(
        stage="ingest",
        step="ingest",
        title="checkpoint, fp32 on this target",
        digest=baseline.digest,
        score=baseline.validation_score,
        size_bytes=baseline.profile.size_bytes,
        compressed_bytes=baseline.profile.compressed_bytes,
        latency_p50_ms=baseline.profile.latency_p50_ms,
    )


def _less(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def search_text(search: SearchRecord) -> str:
    """What a search did, one sentence."""
    kinds = Counter(trial.state.value for trial in search.trials)
    found = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    return (
        f"{len(search.trials)} trials in {duration_text(search.seconds)} ({found}), {len(search.front)} on the front; "
        f"ended because {search.stopped_because}"
    )
