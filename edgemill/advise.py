"""Which device to buy for a model: targets x variants of a finished run, held against limits and ranked.

Every figure keeps the source it came with. A figure that a limit asks for and nobody has excludes a variant:
what cannot be shown is not promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from pydantic import Field, FiniteFloat

from edgemill.artifact import Frozen
from edgemill.summary import Profile, Summary, TargetResult, VariantResult
from edgemill.targets.spec import Price, Target


class Evidence(StrEnum):
    """What a figure rests on, strongest first."""

    LISTED = "listed"
    """A price, with its source and date."""
    MEASURED = "measured"
    """Taken on the target's own kind of machine, or of the file itself."""
    SIMULATED = "simulated"
    """Told by a simulator, an emulator or the tools of the device."""
    ESTIMATED = "estimated"
    """Taken on another machine, or calculated from a power envelope."""
    UNKNOWN = "unknown"
    """Nobody has it."""


_ORDER = tuple(Evidence)
_BY_SOURCE = {
    "measured": Evidence.MEASURED,
    "simulated": Evidence.SIMULATED,
    "emulated": Evidence.SIMULATED,
    "probed": Evidence.SIMULATED,
    "linked": Evidence.SIMULATED,
    "proxy": Evidence.ESTIMATED,
    "estimated": Evidence.ESTIMATED,
}


class Figure(Frozen):
    """A number with what it rests on."""

    value: FiniteFloat | None = None
    evidence: Evidence = Evidence.UNKNOWN
    source: str = Field(default="", description="e.g. measured:native, simulated:vela, estimated:power-envelope")

    @property
    def known(self) -> bool:
        """Whether there is a number at all."""
        return self.value is not None


class Wishes(Frozen):
    """Limits; None asks for nothing."""

    max_latency_ms: float | None = Field(default=None, gt=0)
    max_energy_mj: float | None = Field(default=None, gt=0, description="of one inference above idle")
    min_accuracy: float | None = Field(default=None, description="score on the test split, higher is better")
    max_cost: float | None = Field(default=None, gt=0, description="US dollars of one device")
    max_ram_bytes: int | None = Field(default=None, gt=0)
    evidence: Evidence = Field(default=Evidence.ESTIMATED, description="weakest that is accepted for a limit")


_LIMITS = tuple(name for name in Wishes.model_fields if name != "evidence")


class By(StrEnum):
    """What ranks what holds all limits."""

    COST = "cost"
    LATENCY = "latency"
    ENERGY = "energy"
    ACCURACY = "accuracy"
    SIZE = "size"


class Option(Frozen):
    """One variant on one target."""

    target: str
    title: str
    candidate: str
    latency_ms: Figure
    energy_mj: Figure
    accuracy: Figure
    cost_usd: Figure
    ram_bytes: Figure
    compressed_bytes: Figure
    excluded: tuple[str, ...] = Field(default=(), description="why it is no choice; empty where it is one")
    best: bool = Field(default=False, description="no other choice is at least as good in everything that is known")

    def figure(self, by: By) -> Figure:
        """The figure that a ranking looks at."""
        return {
            By.COST: self.cost_usd,
            By.LATENCY: self.latency_ms,
            By.ENERGY: self.energy_mj,
            By.ACCURACY: self.accuracy,
            By.SIZE: self.compressed_bytes,
        }[by]


class Advice(Frozen):
    """All options, the choices first and best first."""

    model: str
    wishes: Wishes
    by: By
    options: tuple[Option, ...]
    without: dict[str, int] = Field(
        default={}, description="by limit, how many further choices there would be if it alone were not asked"
    )

    @property
    def choices(self) -> tuple[Option, ...]:
        """Those that hold every limit."""
        return tuple(option for option in self.options if not option.excluded)


def advise(summary: Summary, targets: Mapping[str, Target], wishes: Wishes, by: By) -> Advice:
    """Rank what a run found.

    Args:
        summary: of a finished run.
        targets: descriptions by name; prices come from there.
        wishes: limits.
        by: what ranks the choices. A variant whose figure is unknown comes after all others; ties are decided
            by latency, energy, cost, compressed bytes and the name.
    """
    options = _options(summary, targets, wishes)
    choices = sorted((option for option in options if not option.excluded), key=lambda option: _rank(option, by))
    front = [
        option.model_copy(update={"best": not any(_beats(other, option) for other in choices)}) for option in choices
    ]
    rest = sorted(
        (option for option in options if option.excluded), key=lambda o: (len(o.excluded), o.target, o.candidate)
    )
    without = {}
    for limit in _LIMITS:
        if getattr(wishes, limit) is not None:
            easier = _options(summary, targets, wishes.model_copy(update={limit: None}))
            without[limit] = sum(not option.excluded for option in easier) - len(choices)
    return Advice(model=summary.name, wishes=wishes, by=by, options=(*front, *rest), without=without)


def _options(summary: Summary, targets: Mapping[str, Target], wishes: Wishes) -> list[Option]:
    options = [_option(target, variant, targets, wishes) for target in summary.targets for variant in target.variants]
    return options + [_untried(target, targets) for target in summary.targets if not target.variants]


def _option(result: TargetResult, variant: VariantResult, targets: Mapping[str, Target], wishes: Wishes) -> Option:
    profile = variant.profile
    option = Option(
        target=result.target,
        title=result.title,
        candidate=variant.candidate,
        latency_ms=_latency(profile),
        energy_mj=_energy(profile),
        accuracy=_accuracy(variant),
        cost_usd=_cost(targets.get(result.target)),
        ram_bytes=_ram(profile),
        compressed_bytes=Figure()
        if profile is None
        else Figure(value=profile.compressed_bytes, evidence=Evidence.MEASURED, source="file"),
    )
    return option.model_copy(update={"excluded": tuple(_why_not(option, variant, wishes))})


def _untried(result: TargetResult, targets: Mapping[str, Target]) -> Option:
    nothing = Figure()
    return Option(
        target=result.target,
        title=result.title,
        candidate="",
        latency_ms=nothing,
        energy_mj=nothing,
        accuracy=nothing,
        cost_usd=_cost(targets.get(result.target)),
        ram_bytes=nothing,
        compressed_bytes=nothing,
        excluded=(result.skipped or result.unproven or result.failure or "no variant was made",),
    )


def _evidence(source: str) -> Evidence:
    return _BY_SOURCE.get(source.partition(":")[0], Evidence.UNKNOWN)


def _latency(profile: Profile | None) -> Figure:
    value = None if profile is None else profile.latency_p95_ms or profile.latency_p50_ms
    if profile is None or value is None or _evidence(profile.source) is Evidence.UNKNOWN:
        return Figure(source="" if profile is None else profile.source)
    return Figure(value=value, evidence=_evidence(profile.source), source=profile.source)


def _energy(profile: Profile | None) -> Figure:
    if profile is None:
        return Figure()
    if profile.energy_mj is not None:
        source = profile.energy_source or profile.source
        return Figure(value=profile.energy_mj, evidence=Evidence.MEASURED, source=source)
    if profile.energy_estimate_mj is not None:
        return Figure(value=profile.energy_estimate_mj, evidence=Evidence.ESTIMATED, source="estimated:power-envelope")
    return Figure()


def _accuracy(variant: VariantResult) -> Figure:
    if variant.accuracy is None:
        return Figure()
    source = variant.arithmetic.source if variant.arithmetic is not None else "measured:native"
    return Figure(value=variant.accuracy, evidence=_evidence(source), source=source)


def _ram(profile: Profile | None) -> Figure:
    if profile is None or profile.ram_bytes is None:
        return Figure()
    source = profile.source if profile.device is None else profile.device.source
    return Figure(value=profile.ram_bytes, evidence=_evidence(source), source=source)


def _cost(target: Target | None) -> Figure:
    price: Price | None = None if target is None else target.price
    if price is None:
        return Figure()
    return Figure(value=price.usd, evidence=Evidence.LISTED, source=f"{price.source}, {price.date}")


def _why_not(option: Option, variant: VariantResult, wishes: Wishes) -> Iterable[str]:
    if not variant.passed:
        yield f"{variant.status}: {variant.reason}" if variant.reason else str(variant.status)
        return
    limits = (
        ("latency", option.latency_ms, wishes.max_latency_ms, "ms", False),
        ("energy", option.energy_mj, wishes.max_energy_mj, "mJ", False),
        ("accuracy", option.accuracy, wishes.min_accuracy, "", True),
        ("cost", option.cost_usd, wishes.max_cost, "USD", False),
        ("RAM", option.ram_bytes, wishes.max_ram_bytes, "bytes", False),
    )
    for name, figure, limit, unit, floor in limits:
        if limit is None:
            continue
        asked = f"{'at least' if floor else 'at most'} {limit:,.6g} {unit}".rstrip()
        if figure.value is None:
            yield f"{name}: nobody has the figure, {asked} was asked"
        elif _ORDER.index(figure.evidence) > _ORDER.index(wishes.evidence):
            yield f"{name}: {figure.value:,.4g} {unit} is only {figure.evidence}, {wishes.evidence} was asked".replace(
                "  ", " "
            )
        elif figure.value < limit if floor else figure.value > limit:
            yield f"{name}: {figure.value:,.4g} {unit} ({figure.evidence}), {asked} was asked".replace("  ", " ")


def _rank(option: Option, by: By) -> tuple[object, ...]:
    order = (by, By.LATENCY, By.ENERGY, By.COST, By.SIZE)
    return (*(_key(option, one) for one in order), option.target, option.candidate)


def _key(option: Option, by: By) -> float:
    value = option.figure(by).value
    if value is None:
        return float("inf")
    return -value if by is By.ACCURACY else value


def _beats(first: Option, second: Option) -> bool:
    """Whether one is at least as good in everything, and better in something; an unknown figure is the worst."""
    ours, theirs = (_keys(option) for option in (first, second))
    return all(a <= b for a, b in zip(ours, theirs, strict=True)) and ours != theirs


def _keys(option: Option) -> Sequence[float]:
    return [_key(option, by) for by in By]
