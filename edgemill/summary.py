"""The result of a run as one value: summary.json, the terminal table, MLflow and the report all read it.

Scores are "higher is better" whatever the task (see `edgemill.recipe.Task`); for a classification
they are accuracies in 0..1. A drop is baseline minus variant: positive is worse.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, Field, FiniteFloat, NonNegativeInt, computed_field, model_validator

from edgemill.artifact import Frozen, Signature
from edgemill.benchmark.speed import SpeedVerdict, speed_verdict
from edgemill.evidence import Arithmetic, BatchFigure, DeviceFigures, SlowCause, SustainedRun, VersionRange
from edgemill.recipe import Budget, Task
from edgemill.search.record import SearchRecord
from edgemill.validate.verdict import Decision, Group, Verdict

DIGEST = r"^[0-9a-f]{64}$"
EXIT_TARGET_WITHOUT_VARIANT = 3


class _Result(Frozen):
    """Base: computed fields are written for the reader of the JSON and ignored when it is read back."""

    @model_validator(mode="before")
    @classmethod
    def _drop_computed(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key not in cls.model_computed_fields}
        return value


class Status(StrEnum):
    """What became of a variant."""

    SELECTED = "selected"
    """Passed the gate and is the target's default."""
    PASSED = "passed"
    """Passed the gate; ships in the family beside the default."""
    DROPPED = "dropped"
    """Never gated: not better than the baseline, worse on validation data, or dominated."""
    FAILED = "failed"
    """The gate says FAIL, or a step of its chain failed."""
    INCONCLUSIVE = "inconclusive"
    """The gate cannot decide with the test samples at hand, or an earlier test of the sequence ended it."""
    UNPROVEN = "unproven"
    """Converted for a device whose files nothing here can run; never passes."""


class Interval(Frozen):
    """An estimate with its two-sided confidence interval."""

    estimate: FiniteFloat
    lower: FiniteFloat
    upper: FiniteFloat
    confidence: float = Field(default=0.95, gt=0, lt=1)


class Profile(Frozen):
    """Figures of one model file on one target.

    `source` says where the times come from (design rule 7), e.g. `measured:native`, `emulated:qemu`,
    `simulated:vela`, `proxy:x86_64-host`; sizes are always of the file itself.
    """

    size_bytes: NonNegativeInt
    compressed_bytes: NonNegativeInt = Field(description="after gzip -9")
    source: str = Field(min_length=1, description="provenance of the times")
    latency_p50_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    latency_p95_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    latency_p99_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    latency_ratio: Interval | None = Field(
        default=None, description="variant time / baseline time of the same interleaved run; below 1 is faster"
    )
    rounds: NonNegativeInt | None = Field(default=None, description="interleaved rounds behind the ratio")
    stopped: str | None = Field(default=None, description="precise, or time budget: why the run ended")
    throughput_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="samples a second")
    cold_start_ms: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="from the start of a process to its first answer"
    )
    batches: tuple[BatchFigure, ...] = Field(default=(), description="at further batch sizes")
    transfer_bytes: NonNegativeInt | None = Field(default=None, description="after zstd -19: what an update transfers")
    arena_bytes: NonNegativeInt | None = Field(default=None, description="working memory as the runtime counts it")
    energy_mj: float | None = Field(
        default=None, allow_inf_nan=False, description="millijoules of one inference above idle, measured only"
    )
    energy_source: str | None = Field(default=None, description="provenance of energy_mj, e.g. measured:rapl")
    energy_estimate_mj: float | None = Field(
        default=None, allow_inf_nan=False, description="the same from the target's power envelope; never a measurement"
    )
    peak_rss_bytes: NonNegativeInt | None = Field(default=None, description="of a process that runs it")
    device: DeviceFigures | None = Field(default=None, description="of a device whose times cannot be taken here")
    samples_digest: str | None = Field(default=None, pattern=DIGEST, description="artifact with the raw samples")

    @property
    def ram_bytes(self) -> int | None:
        """Memory that the device needs: as its tools say, else of a process here."""
        return self.peak_rss_bytes if self.device is None else self.device.ram_bytes

    @property
    def flash_bytes(self) -> int:
        """What the device has to hold: as its tools say, else the file."""
        return self.size_bytes if self.device is None or self.device.flash_bytes is None else self.device.flash_bytes

    @property
    def speed(self) -> SpeedVerdict | None:
        """Whether it is faster than the baseline beyond noise; None where no ratio was measured."""
        ratio = self.latency_ratio
        return None if ratio is None else speed_verdict(ratio.estimate, ratio.lower, ratio.upper)


class ChainStep(Frozen):
    """One link of a candidate's chain, from the checkpoint to the compiled file."""

    stage: str = Field(description="ingest, distill, channels, prune, cluster, quantize, compile")
    step: str = Field(description="name of the step that ran, e.g. quantize.static")
    title: str = Field(description="for people, e.g. `distill, width 0.5`")
    digest: str | None = Field(default=None, pattern=DIGEST, description="artifact after this step")
    score: FiniteFloat | None = Field(default=None, description="validation score after this step")
    size_bytes: NonNegativeInt | None = None
    compressed_bytes: NonNegativeInt | None = None
    latency_p50_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Baseline(_Result):
    """The ingested checkpoint in fp32 on the same target: what every variant is compared with."""

    digest: str = Field(pattern=DIGEST)
    profile: Profile
    validation_score: FiniteFloat | None = None
    accuracy: FiniteFloat | None = Field(default=None, description="test score")


class VariantResult(_Result):
    """One candidate on one target."""

    target: str
    candidate: str = Field(description="name of the chain, e.g. distill-int8_static")
    scheme: str = Field(description="fp32, fp16, int8_static, int8_mixed, int8_qat or int8_dynamic")
    chain: tuple[ChainStep, ...] = ()
    digest: str | None = Field(default=None, pattern=DIGEST, description="compiled file; None where compilation failed")
    kind: str | None = Field(default=None, description="onnx or tflite")
    signature: Signature | None = None
    profile: Profile | None = None
    validation_score: FiniteFloat | None = None
    validation_drop: FiniteFloat | None = None
    validation_drop_upper: FiniteFloat | None = None
    accuracy: FiniteFloat | None = Field(default=None, description="test score; None where the variant was never gated")
    verdict: Verdict | None = Field(default=None, description="of all checks on test data together")
    lost: NonNegativeInt | None = Field(default=None, description="test samples right in the baseline and wrong here")
    won: NonNegativeInt | None = Field(default=None, description="test samples wrong in the baseline and right here")
    flip_rate: FiniteFloat | None = Field(default=None, ge=0, le=1, description="share of samples with another answer")
    checks: tuple[Verdict, ...] = Field(default=(), description="every declared check on test data, the main one first")
    groups: tuple[Group, ...] = Field(default=(), description="classes and slices, each on its own")
    arithmetic: Arithmetic | None = Field(default=None, description="in which its answers were computed")
    versions: VersionRange | None = Field(default=None, description="whether older runtimes answer alike")
    slow_because: tuple[SlowCause, ...] = Field(default=(), description="where it is not faster than the baseline")
    missing: tuple[str, ...] = Field(default=(), description="figures that could not be had, and why")
    status: Status
    reason: str = Field(default="", description="why, one sentence; never empty unless selected or passed")

    @property
    def passed(self) -> bool:
        """Whether it ships."""
        return self.status in (Status.SELECTED, Status.PASSED)

    @property
    def drop_check(self) -> Verdict | None:
        """The check of the budget: its estimate is the drop of the score, whatever decided in the end."""
        return self.checks[0] if self.checks else self.verdict

    @property
    def further_checks(self) -> bool:
        """Whether checks beside the main one were declared."""
        return len(self.checks) > 1

    @computed_field(description="the figures under the names that MLflow holds; absent where not measured")  # type: ignore[prop-decorator]
    @property
    def metrics(self) -> dict[str, float]:
        """What was measured of `all_metrics`."""
        return {name: value for name, value in self.all_metrics.items() if value is not None}

    @property
    def all_metrics(self) -> dict[str, float | None]:
        """The same names for every candidate and target; None where it was not measured."""
        profile, drop = self.profile, self.drop_check
        ratio = profile.latency_ratio if profile else None
        values = {
            "accuracy": self.accuracy,
            "accuracy_drop": drop.estimate if drop else None,
            "accuracy_drop_upper": drop.upper if drop else None,
            "validation_score": self.validation_score,
            "flip_rate": self.flip_rate,
            "latency_p50_ms": profile.latency_p50_ms if profile else None,
            "latency_p95_ms": profile.latency_p95_ms if profile else None,
            "latency_p99_ms": profile.latency_p99_ms if profile else None,
            "throughput_per_s": profile.throughput_per_s if profile else None,
            "cold_start_ms": profile.cold_start_ms if profile else None,
            "latency_ratio": ratio.estimate if ratio else None,
            "latency_ratio_upper": ratio.upper if ratio else None,
            "speedup": 1 / ratio.estimate if ratio and ratio.estimate > 0 else None,
            "size_bytes": profile.size_bytes if profile else None,
            "compressed_bytes": profile.compressed_bytes if profile else None,
            "transfer_bytes": profile.transfer_bytes if profile else None,
            "peak_rss_bytes": profile.peak_rss_bytes if profile else None,
            "device_ram_bytes": profile.device.ram_bytes if profile and profile.device else None,
            "device_flash_bytes": profile.device.flash_bytes if profile and profile.device else None,
            "device_cycles": profile.device.cycles if profile and profile.device else None,
            "energy_mj": profile.energy_mj if profile else None,
            "gate_passed": float(self.verdict.passed) if self.verdict else None,
        }
        return {name: None if value is None else float(value) for name, value in values.items()}


class TargetResult(_Result):
    """Everything that happened for one target."""

    target: str
    title: str = ""
    source: str | None = Field(default=None, description="provenance of the latencies; None where none was measured")
    baseline: Baseline | None = None
    variants: tuple[VariantResult, ...] = ()
    failure: str | None = Field(default=None, description="why the target could not be tried at all")
    skipped: str | None = Field(default=None, description="what this machine lacks to try the target, and what gets it")
    unproven: str | None = Field(default=None, description="why nothing here can run the target's files")
    sustained: SustainedRun | None = Field(default=None, description="long run of the default variant")
    bundle: str | None = Field(default=None, description="folder of the family bundle, relative to the output folder")

    @model_validator(mode="after")
    def _at_most_one_selected(self) -> TargetResult:
        if sum(variant.status is Status.SELECTED for variant in self.variants) > 1:
            raise ValueError(f"{self.target}: more than one variant is selected")
        return self

    @property
    def counts(self) -> bool:
        """Whether a variant could have passed here."""
        return self.skipped is None and self.unproven is None

    @property
    def selected_variant(self) -> VariantResult | None:
        """The default of the family."""
        return next((variant for variant in self.variants if variant.status is Status.SELECTED), None)

    @computed_field(description="digest of the default variant, or null")  # type: ignore[prop-decorator]
    @property
    def selected(self) -> str | None:
        """Digest of the default variant."""
        chosen = self.selected_variant
        return chosen.digest if chosen else None

    @computed_field(description="PASS where a variant ships")  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Decision:
        """PASS with a selected variant, INCONCLUSIVE where more samples could still give one, else FAIL."""
        if self.selected_variant is not None:
            return Decision.PASS
        undecided = any(variant.status is Status.INCONCLUSIVE for variant in self.variants)
        return Decision.INCONCLUSIVE if undecided else Decision.FAIL

    @property
    def outcome(self) -> str:
        """The verdict, or SKIPPED or UNPROVEN where no variant could have passed here."""
        if self.skipped is not None:
            return "SKIPPED"
        return "UNPROVEN" if self.unproven is not None else str(self.verdict)


class CheckpointFacts(Frozen):
    """What was compressed."""

    format: str = Field(description="as detected, e.g. keras3")
    digest: str = Field(pattern=DIGEST)
    size_bytes: NonNegativeInt | None = None
    parameters: NonNegativeInt | None = None
    macs: NonNegativeInt | None = Field(default=None, description="multiply-accumulates of one sample")


class DataFacts(Frozen):
    """On which samples."""

    source: str
    digest: str = Field(pattern=DIGEST)
    splits: dict[str, int] = Field(description="samples of each split")


class Summary(_Result):
    """The result of one run."""

    schema_version: Literal[1] = 1
    name: str
    task: Task
    recipe_digest: str = Field(pattern=DIGEST)
    budget: Budget
    seed: int = 0
    checkpoint: CheckpointFacts
    data: DataFacts
    targets: tuple[TargetResult, ...] = Field(min_length=1)
    search: SearchRecord | None = Field(default=None, description="what was tried, where the recipe asks for a search")
    started: AwareDatetime
    finished: AwareDatetime
    environment: dict[str, str] = Field(default_factory=dict, description="machine and versions, by name")
    steps_run: NonNegativeInt = 0
    steps_cached: NonNegativeInt = 0
    links: dict[str, str] = Field(default_factory=dict, description="where else to look, e.g. the MLflow run, by title")
    command: str = Field(description="shell command that does this run again")

    @computed_field(description="exit status of `edgemill optimize`")  # type: ignore[prop-decorator]
    @property
    def exit_code(self) -> int:
        """0 if every target that can be tried here has a passing variant, and there is one; else 3."""
        tried = [target for target in self.targets if target.counts]
        passed = all(target.selected_variant is not None for target in tried)
        return 0 if tried and passed else EXIT_TARGET_WITHOUT_VARIANT

    @property
    def wall_seconds(self) -> float:
        """Time the run took."""
        return _seconds(self.started, self.finished)

    def variant(self, digest: str) -> VariantResult | None:
        """The variant with this compiled file."""
        return next((v for target in self.targets for v in target.variants if v.digest == digest), None)


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()
