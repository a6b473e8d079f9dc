"""What is known of a variant beside its gate and its profile: in which arithmetic it answered, why it is slow."""

from __future__ import annotations

from pydantic import Field, FiniteFloat

from edgemill.artifact import Frozen


class Arithmetic(Frozen):
    """In which arithmetic the answers were computed on which the gate decided, and how far the host's are off."""

    source: str = Field(
        description="measured:native, measured:board:NAME, emulated:..., or proxy:... where it is not the target's"
    )
    note: str = Field(default="", description="why it is not the target's own; empty where it is")
    compared: int = Field(default=0, ge=0, description="samples on which host and target were compared")
    bit_equal: FiniteFloat | None = Field(default=None, ge=0, le=1, description="share of samples with equal bits")
    agreement: FiniteFloat | None = Field(default=None, ge=0, le=1, description="share of samples with equal argmax")
    max_difference: FiniteFloat | None = Field(default=None, ge=0, description="largest absolute difference of outputs")
    first_layer: str | None = Field(default=None, description="first tensor in which host and target part")
    cures: tuple[str, ...] = Field(default=(), description="what was done about it, and what came of it")

    @property
    def is_notable(self) -> bool:
        """Whether there is more to say than that it ran natively on the target's own kind of machine."""
        return self.source != "measured:native" or bool(self.cures)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The note and the cures, for people."""
        return tuple(filter(None, (self.note, *self.cures)))


class VersionRange(Frozen):
    """Whether the file answers alike in the oldest and the newest runtime of its target's range."""

    runtime: str
    oldest: str = Field(description="version in which it was run, or where the range begins if it was not")
    newest: str = Field(description="version of the runtime that answered the gate's samples")
    compared: int = Field(default=0, ge=0, description="samples that both answered; 0: the range is not proven")
    agreement: FiniteFloat | None = Field(default=None, ge=0, le=1, description="share of samples with equal argmax")
    max_difference: FiniteFloat | None = Field(default=None, ge=0, description="relative to the range of the answers")
    missing: str = Field(default="", description="what is missing to prove it; empty where it is proven")


class Span(Frozen):
    """Medians over a part of a sustained run; None where nothing tells."""

    from_s: FiniteFloat
    to_s: FiniteFloat
    p50_ms: FiniteFloat
    p95_ms: FiniteFloat
    temperature_c: FiniteFloat | None = None
    mhz: FiniteFloat | None = None
    power_w: FiniteFloat | None = None
    energy_mj: FiniteFloat | None = Field(default=None, description="of one inference above idle")


class SustainedRun(Frozen):
    """What a long run of the selected variant showed."""

    minutes: FiniteFloat
    source: str = Field(description="provenance of the times")
    first_minute: Span
    steady_state: Span | None = None
    steady_state_missing: str | None = None
    throttle_onset_s: FiniteFloat | None = Field(default=None, description="None: no throttling was found")
    throttle_evidence: tuple[str, ...] = ()
    sensors_missing: dict[str, str] = Field(default_factory=dict, description="what could not be read, and why")
    series: str = Field(description="SHA-256 of the artifact with every window")
    columns: dict[str, tuple[FiniteFloat | None, ...]] = Field(
        default_factory=dict, description="the series, thinned for pictures"
    )


class SlowCause(Frozen):
    """One reason why a variant is not faster, read from the runtime's own profile."""

    cause: str = Field(description="short name, e.g. conv_integer")
    title: str
    text: str = Field(description="what was seen, with numbers")
    remedy: str = ""
    share_of_time: FiniteFloat | None = Field(default=None, ge=0, description="of one inference")


class DeviceFigures(Frozen):
    """What a compiler, linker, interpreter or simulator says that a model takes on a device that is not here."""

    source: str = Field(description="who says so, e.g. simulated:vela or linked:arm-none-eabi-gcc")
    latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="of one inference")
    cycles: int | None = Field(default=None, gt=0, description="of one inference")
    ram_bytes: int | None = Field(default=None, ge=0, description="activations, scratch, stack and variables")
    flash_bytes: int | None = Field(default=None, ge=0, description="weights, and code where the file is a program")
    npu_share: FiniteFloat | None = Field(default=None, ge=0, le=1, description="of operators, on the NPU")
    cpu_operators: tuple[str, ...] = Field(default=(), description="operators that are left to the CPU beside the NPU")
    notes: tuple[str, ...] = Field(default=(), description="what a figure holds and what not")


class BatchFigure(Frozen):
    """Latency at another batch size than the one at which variants are compared."""

    batch: int = Field(gt=0)
    p50_ms: FiniteFloat | None = Field(default=None, gt=0)
    ratio: FiniteFloat | None = Field(default=None, gt=0, description="variant / baseline; below 1 is faster")
    lower: FiniteFloat | None = None
    upper: FiniteFloat | None = None
    baseline_p50_ms: FiniteFloat | None = Field(default=None, gt=0)
    throughput_per_s: FiniteFloat | None = Field(default=None, gt=0, description="samples a second")
    rounds: int | None = None
    stopped: str | None = None
    skipped: str | None = Field(default=None, description="why it was not measured")
