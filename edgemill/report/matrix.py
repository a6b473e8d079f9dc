"""The matrix of targets as SVG text: what ships to each, and what it takes there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from edgemill.recipe import Task
from edgemill.report.figures import NONE, bytes_text, count_text, score_name, score_text, time_text
from edgemill.report.rows import CELL, HEAD, PAD, ROW, bar, cut, headings, line_of, opening, rule, span, text
from edgemill.select import is_telling
from edgemill.summary import Profile, Summary, TargetResult, VariantResult

FEWEST = 4
"""Targets from which on the matrix says more than the cards."""

_NAME, _VERDICT, _SOURCE = 220, 120, 380
_COLOURS = {"PASS": "--passed", "FAIL": "--failed", "INCONCLUSIVE": "--inconclusive"}


@dataclass(frozen=True)
class _Column:
    title: str
    value: Callable[[VariantResult, Profile], float | None]
    text: Callable[[float], str]
    bars: bool = True


def matrix_svg(summary: Summary, *, standalone: bool = False) -> str:
    """Targets x {verdict, score, size, RAM, time or cycles, source of the figures}, of every default variant.

    Bars are on a logarithmic scale of their own in each column; shorter is better. Where nothing ships the row
    shows what was nearest, in grey, or why nothing was tried.

    Args:
        summary: of the run.
        standalone: with its own light colours, to be stored as a file.
    """
    columns = _columns(summary.task)
    width = _NAME + _VERDICT + CELL * len(columns) + _SOURCE
    height = HEAD + ROW * len(summary.targets) + PAD
    label = "targets with score, size, memory and time of what ships to each"
    lefts = _lefts(len(columns))
    titles = ["target", "verdict", *(column.title for column in columns), "answers; times"]
    parts = [opening("matrix", width, height, label, standalone=standalone), headings(lefts, titles)]
    shown = [(target, _nearest(target)) for target in summary.targets]
    drawn = [(variant, variant.profile) for _, variant in shown if variant is not None and variant.profile is not None]
    spans = [span([column.value(*row) for row in drawn]) for column in columns]
    for index, (target, variant) in enumerate(shown):
        parts.append(_row(index, target, variant, list(zip(columns, spans, strict=True)), lefts, width))
    return "".join([*parts, "</svg>"])


def _columns(task: Task) -> tuple[_Column, ...]:
    def score(variant: VariantResult, _: Profile) -> float | None:
        return variant.accuracy  # of the test split only; what was never gated has none

    return (
        _Column(score_name(task), score, lambda value: score_text(value, task), bars=False),
        _Column("flash, bytes", lambda _, profile: profile.flash_bytes, bytes_text),
        _Column("RAM", lambda _, profile: profile.ram_bytes, bytes_text),
        _Column("one answer", lambda _, profile: _time_ms(profile), time_text),
        _Column("cycles", lambda _, profile: profile.device.cycles if profile.device else None, _cycles),
    )


def _time_ms(profile: Profile) -> float | None:
    """None where it was taken on a machine whose times say nothing of the target."""
    return profile.latency_p50_ms if profile.device is not None or is_telling(profile) else None


def _cycles(value: float) -> str:
    return count_text(round(value))


def _nearest(target: TargetResult) -> VariantResult | None:
    """The default, else the measured variant with the best score."""
    measured = [variant for variant in target.variants if variant.profile is not None]
    best = max(measured, key=lambda variant: variant.validation_score or -math.inf, default=None)
    return target.selected_variant or best


def _lefts(columns: int) -> list[int]:
    lefts = [PAD, _NAME, _NAME + _VERDICT]
    return [*lefts, *(_NAME + _VERDICT + CELL * (index + 1) for index in range(columns))]


def _row(
    index: int,
    target: TargetResult,
    variant: VariantResult | None,
    columns: Sequence[tuple[_Column, tuple[float, float] | None]],
    lefts: Sequence[int],
    width: int,
) -> str:
    line = line_of(index)
    out = [
        rule(index, width),
        text(PAD, line, target.target, "--ink", bold=True),
        text(_NAME, line, target.outcome, _COLOURS.get(target.outcome, "--dropped"), bold=True),
    ]
    why_not = target.skipped or target.unproven or (target.failure if variant is None else None)
    if why_not is not None or variant is None or variant.profile is None:
        return "".join([*out, text(lefts[2], line, cut(why_not or "no variant was measured", 130), "--muted")])
    ships = target.selected_variant is not None
    for (column, over), left in zip(columns, lefts[2:], strict=False):
        value = column.value(variant, variant.profile)
        if column.bars:
            out.append(bar(left, index, value, over, "--accent" if ships else "--dropped"))
        out.append(text(left, line, NONE if value is None else column.text(value), "--ink" if ships else "--muted"))
    device = variant.profile.device
    sources = [variant.arithmetic.source] if variant.arithmetic else []
    sources.append(device.source if device else variant.profile.source)
    out.append(text(lefts[-1], line, cut("; ".join(dict.fromkeys(sources)), 56), "--muted"))
    tip = f"{target.target}: {variant.candidate}, {variant.status}{': ' + variant.reason if variant.reason else ''}"
    return f"<g><title>{escape(tip)}</title>{''.join(out)}</g>"
