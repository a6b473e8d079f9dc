"""Selection for one target: which candidates are gated, in which order, and which one is the default.

Everything before the gate looks at validation data and measurements only (design rule 1). All
functions are pure: equal input gives equal output, whatever the order of the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemill.errors import InvariantError
from edgemill.evidence import DeviceFigures
from edgemill.summary import Interval, Profile
from edgemill.targets.spec import Limits
from edgemill.validate.verdict import Decision, Verdict

PROXY_RESOLUTION = 1.25
"""Times of another machine than the target that differ by less than this factor count as equal."""

_LEANER = 0.97
"""Peak resident sizes of two processes differ by up to 1 % by chance."""

_MEASURED = frozenset({"measured", "simulated"})
_PROXY = frozenset({"proxy"})


@dataclass(frozen=True)
class Measured:
    """A compiled candidate and what is known of it before the gate.

    Attributes:
        name: of the candidate; unique within the target.
        profile: its figures on the target.
        screen: paired comparison with the baseline on validation data, over all checks.
        drop_upper: upper bound of the drop of the score there; None with too few samples.
        score: on validation data, higher is better.
    """

    name: str
    profile: Profile
    screen: Verdict
    drop_upper: float | None
    score: float


def origin(profile: Profile) -> str:
    """First word of the provenance: measured, simulated, proxy, emulated, unlike, estimated."""
    return profile.source.partition(":")[0]


def is_telling(profile: Profile) -> bool:
    """Whether its times say anything of the target.

    Times of an emulator, of a machine on which the file runs in another way, and estimates do not.
    """
    return origin(profile) in _MEASURED | _PROXY


def pareto_front(variants: Sequence[Measured]) -> list[Measured]:
    """Those that no other beats: as fast, as small and as accurate, and better in one of the three.

    Time is the ratio to the baseline of the same interleaved run where every variant has it (it
    cancels what else the machine did), else the median; times that say nothing of the target are
    left out of account. Of equals, the first by name stays.

    Returns:
        The front, fastest first.
    """
    ranked = sorted(variants, key=lambda variant: (*_axes(variant, variants), variant.name))
    front: list[Measured] = []
    for variant in ranked:
        axes = _axes(variant, variants)
        if not any(_covers(_axes(other, variants), axes) for other in front):
            front.append(variant)
    return front


def _axes(variant: Measured, among: Sequence[Measured]) -> tuple[float, float, float]:
    return (_time(variant.profile, among), float(variant.profile.compressed_bytes), -variant.score)


def _covers(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True))


def _time(profile: Profile, among: Sequence[Measured]) -> float:
    if not all(is_telling(other.profile) for other in among):
        return 0.0
    if profile.latency_ratio is not None and all(other.profile.latency_ratio is not None for other in among):
        return profile.latency_ratio.estimate
    return profile.latency_p50_ms if profile.latency_p50_ms is not None else float("inf")


def screen(
    variants: Sequence[Measured], baseline: Profile, limits: Limits | None = None
) -> tuple[list[Measured], dict[str, str]]:
    """Leave out what is not worth a test.

    A variant is dropped when, in this order:

    1. its predictions on validation data are broken, or its drop there is above the margin at the
       recipe's confidence (the screen says FAIL),
    2. no latency was measured,
    3. it exceeds a limit of the target, or has no figure to show that it does not,
    4. it is not better than the baseline in latency (upper end of the ratio's interval below 1), in
       size or in memory (design rule 5),
    5. another kept variant is as good in everything (see `pareto_front`). Little is lost by this:
       the better one has the higher validation score, so where the sequence of the gate ends at
       it, the other would seldom have been tested before.

    Returns:
        The variants to gate, fastest first, and the reason for each dropped one by name.

    Raises:
        InvariantError: two variants have the same name.
    """
    if len({variant.name for variant in variants}) != len(variants):
        raise InvariantError("Two candidates of a target have the same name.", got=str([v.name for v in variants]))
    dropped: dict[str, str] = {}
    worthy: list[Measured] = []
    for variant in variants:
        reason = _why_not(variant, baseline, limits or Limits())
        if reason is None:
            worthy.append(variant)
        else:
            dropped[variant.name] = reason
    front = pareto_front(worthy)
    names = {variant.name for variant in front}
    for variant in worthy:
        if variant.name not in names:
            better = next(other for other in front if _covers(_axes(other, worthy), _axes(variant, worthy)))
            virtues = "as fast, as small and as accurate" if is_telling(variant.profile) else "as small and as accurate"
            dropped[variant.name] = f"{better.name} is {virtues} on validation data"
    return front, dropped


def _why_not(variant: Measured, baseline: Profile, limits: Limits) -> str | None:
    if variant.screen.verdict is Decision.FAIL:
        return f"on validation data {variant.screen.reason}"
    untimed = variant.profile.device is not None
    if not untimed and variant.profile.latency_p50_ms is None and variant.profile.latency_ratio is None:
        return "its latency was not measured"
    return _over_limit(variant.profile, limits) or _not_better(variant.profile, baseline)


def _over_limit(profile: Profile, limits: Limits) -> str | None:
    time = profile.latency_p95_ms or profile.latency_p50_ms
    checks = (
        ("flash", "bytes", limits.flash_bytes, profile.flash_bytes),
        ("RAM", "bytes", limits.ram_bytes, profile.ram_bytes),
        ("latency", "ms", limits.latency_ms, time if origin(profile) in _MEASURED else None),
    )
    for what, unit, limit, figure in checks:
        if limit is None:
            continue
        if figure is None:
            return f"the target's {what} limit of {limit:,} {unit} cannot be shown from {profile.source} figures"
        if figure > limit:
            return over(what, figure, limit, unit)
    return None


def over(what: str, figure: float, limit: float, unit: str) -> str:
    """By how much a figure is over a limit, in words."""
    shown, excess, allowed = (
        f"{value:,.0f}" if unit == "bytes" else f"{value:,.4g}" for value in (figure, figure - limit, limit)
    )
    return f"{what}: {shown} {unit} are {excess} over the target's limit of {allowed}"


def does_not_fit(device: DeviceFigures, limits: Limits) -> str | None:
    """Why a compiled model does not fit on a device, by what its tools say; None where it does, or nobody knows yet."""
    for what, figure, limit in _memory(device, limits):
        if figure > limit:
            return over(what, figure, limit, "bytes")
    return None


def excess(device: DeviceFigures, limits: Limits) -> float:
    """How far a compiled model is over the memory of a device, as a share of what that has; 0 where it fits."""
    return max([0.0, *(figure / limit - 1 for _, figure, limit in _memory(device, limits))])


def _memory(device: DeviceFigures, limits: Limits) -> list[tuple[str, int, int]]:
    """What it takes of flash and RAM, and what there is, where both are known."""
    both = (("flash", device.flash_bytes, limits.flash_bytes), ("RAM", device.ram_bytes, limits.ram_bytes))
    return [(what, figure, limit) for what, figure, limit in both if figure is not None and limit is not None]


def _not_better(profile: Profile, baseline: Profile) -> str | None:
    ratio = profile.latency_ratio
    faster = is_telling(profile) and profile.speed == "faster"
    smaller = profile.size_bytes < baseline.size_bytes or profile.compressed_bytes < baseline.compressed_bytes
    known = profile.peak_rss_bytes is not None and baseline.peak_rss_bytes is not None
    leaner = known and (profile.peak_rss_bytes or 0) < _LEANER * (baseline.peak_rss_bytes or 0)
    if faster or smaller or leaner:
        return None
    time = "no latency ratio" if ratio is None else f"{ratio.estimate:.3f} ({_range(ratio)}) of its time"
    size = f"{profile.size_bytes:,} against {baseline.size_bytes:,} bytes"
    return f"not better than the fp32 baseline: {time}, {size}, no less memory"


def _range(interval: Interval) -> str:
    return f"{interval.lower:.3f} to {interval.upper:.3f}"


def gate_order(variants: Sequence[Measured]) -> list[Measured]:
    """Order of the fixed sequence: safest first, by the upper bound of the drop on validation data.

    Those that pass every check there come before all others. Without a bound (too few validation
    samples) a variant comes last. On a tie the higher score, then the smaller file, then the name decides.
    """

    def key(variant: Measured) -> tuple[bool, float, float, int, str]:
        return (
            not variant.screen.passed,
            float("inf") if variant.drop_upper is None else variant.drop_upper,
            -variant.score,
            variant.profile.compressed_bytes,
            variant.name,
        )

    return sorted(variants, key=key)


def choose(passed: Sequence[Measured]) -> Measured | None:
    """The default among the variants that passed the gate.

    How much a time is worth depends on where it comes from:

    - measured, simulated: the fastest wins. Those whose interval of the ratio overlaps the
      fastest's are as fast as it is, and of these the smallest (compressed) wins.
    - proxy (a machine of another kind ran it): the best knowledge there is, but too coarse for
      small differences. Those within `PROXY_RESOLUTION` of the fastest count as equally fast.
    - any other or mixed sources: the order of times says nothing of the device; the smallest wins.

    A further tie is decided by the higher validation score, then by name.
    """
    if not passed:
        return None
    origins = {origin(variant.profile) for variant in passed}
    fast: list[Measured] = list(passed)
    if len(origins) == 1 and origins <= _MEASURED | _PROXY:
        best = min(passed, key=lambda variant: (_time(variant.profile, passed), variant.name))
        proxy = origins <= _PROXY
        fast = [variant for variant in passed if _as_fast(variant.profile, best.profile, passed, proxy=proxy)]
    return min(fast, key=lambda variant: (variant.profile.compressed_bytes, -variant.score, variant.name))


def _as_fast(profile: Profile, best: Profile, among: Sequence[Measured], *, proxy: bool) -> bool:
    if proxy:
        return _time(profile, among) <= PROXY_RESOLUTION * _time(best, among)
    if profile.latency_ratio is not None and best.latency_ratio is not None:
        return profile.latency_ratio.lower <= best.latency_ratio.upper
    return _time(profile, among) <= _time(best, among)


def outcome(order: Sequence[Measured], verdicts: Mapping[str, Verdict]) -> tuple[Measured | None, list[Measured]]:
    """Default and family after the gate.

    Returns:
        The default variant (None where nothing passed), and all variants that ship, default first.
    """
    passed = [variant for variant in order if verdicts[variant.name].passed]
    default = choose(passed)
    if default is None:
        return None, []
    return default, [default, *(variant for variant in passed if variant is not default)]
