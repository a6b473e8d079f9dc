"""Picture of a sustained run: latency, temperature, clock and power over time, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from edgemill.report.charts import PALETTE, linear_ticks

Series = Mapping[str, Sequence[float | None] | NDArray[np.float64]]

_WIDTH = 1160
_LEFT, _RIGHT = 66, 20
_TOP, _PANEL, _GAP, _BOTTOM = 34, 150, 38, 46
_MOST_POINTS = 500
_MINUTE = 60.0
_HEADROOM = 0.08
_ROOM_FOR_WORDS = 0.25


@dataclass(frozen=True)
class _Line:
    values: NDArray[np.float64]
    name: str
    faint: bool = False


@dataclass(frozen=True)
class _Panel:
    title: str
    lines: tuple[_Line, ...]
    text: Callable[[float], str]


def sustained_svg(series: Series, facts: Mapping[str, Any], *, standalone: bool = False) -> str:
    """One panel above the other, over the same time; what could not be read has no panel.

    The first minute and the steady state are shaded, the onset of throttling is a line.

    Args:
        series: `start_s`, `length_s`, `p50_ms`, `p95_ms`, `temperature_c`, `mhz`, `joules`, each (windows,).
        facts: of the step `benchmark.sustained`.
        standalone: with its own light colours, to be stored as a file.

    Returns:
        SVG text; empty for fewer than two windows.
    """
    column = {
        name: np.array([math.nan if value is None else value for value in values], np.float64)
        for name, values in series.items()
    }
    if not column:
        return ""
    start = column["start_s"]
    if len(start) < 2:
        return ""
    end = float(start[-1] + column["length_s"][-1])
    panels = _panels(column, facts)
    height = _TOP + len(panels) * _PANEL + (len(panels) - 1) * _GAP + _BOTTOM

    def px(seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * seconds / end

    parts = [
        f'<svg class="sustained" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{escape(_summary(facts, end))}">',
    ]
    if standalone:
        rules = ";".join(f"{name}:{value}" for name, value in PALETTE.items())
        parts.append(f"<style>svg{{{rules};background:#ffffff;font-family:sans-serif}}</style>")
    for index, panel in enumerate(panels):
        top = _TOP + index * (_PANEL + _GAP)
        parts.append(_shades(facts, px, top, named=index == 0))
        parts.append(_draw(panel, start, px, top))
        parts.append(_onset(facts, px, top, named=index == 0))
    parts.append(_time_axis(end, px, height - _BOTTOM))
    parts.append("</svg>")
    return "".join(parts)


def _panels(column: Mapping[str, NDArray[np.float64]], facts: Mapping[str, Any]) -> list[_Panel]:
    source = facts.get("source", "")
    panels = [
        _Panel(
            f"latency of one call, ms ({source})" if source else "latency of one call, ms",
            (_Line(column["p95_ms"], "95th percentile", faint=True), _Line(column["p50_ms"], "median")),
            lambda value: f"{value:.3g}",
        )
    ]
    if not np.isnan(column["temperature_c"]).all():
        panels.append(_Panel("processor, °C", (_Line(column["temperature_c"], "temperature"),), _whole))
    if "frequency" not in facts.get("sensors_missing", {}) and not np.isnan(column["mhz"]).all():
        panels.append(_Panel("clock, MHz", (_Line(column["mhz"], "clock"),), _whole))
    if not np.isnan(column["joules"]).all():
        watts = column["joules"] / column["length_s"]
        title = f"power, W ({facts.get('energy_source', 'unknown source')})"
        panels.append(_Panel(title, (_Line(watts, "power"),), lambda value: f"{value:.3g}"))
    return panels


def _draw(panel: _Panel, start: NDArray[np.float64], px: Callable[[float], float], top: float) -> str:
    drawn = [_thin(start, line.values) for line in panel.lines]
    low, high = _span(drawn)
    if len(panel.lines) > 1:
        high += _ROOM_FOR_WORDS * (high - low)
    base = top + _PANEL

    def py(value: float) -> float:
        return base - _PANEL * (value - low) / (high - low)

    out = [
        f'<text x="6" y="{top - 12}" font-size="13" fill="var(--ink)">{escape(panel.title)}</text>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}" stroke="var(--muted)"/>',
    ]
    for tick in linear_ticks(low, high):
        y = py(tick)
        out.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" font-size="12" fill="var(--muted)">'
            f"{escape(panel.text(tick))}</text>"
        )
    for line, (times, values) in zip(panel.lines, drawn, strict=True):
        opacity = 0.35 if line.faint else 1
        out.append(
            f'<path d="{_path(times, values, px, py)}" fill="none" stroke="var(--accent)" '
            f'stroke-opacity="{opacity}" stroke-width="1.5"><title>{escape(line.name)}</title></path>'
        )
    if len(panel.lines) > 1:
        names = ", ".join(f"{'faint' if line.faint else 'strong'}: {line.name}" for line in panel.lines)
        out.append(
            f'<text x="{_WIDTH - _RIGHT}" y="{top - 12}" text-anchor="end" font-size="12" fill="var(--muted)">'
            f"{escape(names)}</text>"
        )
    return "".join(out)


def _span(drawn: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float]:
    values = np.concatenate([line for _, line in drawn])
    known = values[~np.isnan(values)]
    low, high = float(known.min()), float(known.max())
    pad = _HEADROOM * (high - low) or max(abs(high), 1.0) * _HEADROOM
    return low - pad, high + pad


def _thin(start: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `_MOST_POINTS` points: medians of the known values of neighbours."""
    step = max(1, math.ceil(len(values) / _MOST_POINTS))
    groups = [values[index : index + step] for index in range(0, len(values), step)]
    medians = [float(np.median(known)) if len(known := group[~np.isnan(group)]) else math.nan for group in groups]
    return start[::step], np.array(medians)


def _path(
    times: NDArray[np.float64],
    values: NDArray[np.float64],
    px: Callable[[float], float],
    py: Callable[[float], float],
) -> str:
    """A line with gaps where a value is unknown."""
    path = ""
    pen_down = False
    for time, value in zip(times, values, strict=True):
        if math.isnan(value):
            pen_down = False
            continue
        path += f"{'L' if pen_down else 'M'}{px(time):.1f} {py(value):.1f}"
        pen_down = True
    return path


def _shades(facts: Mapping[str, Any], px: Callable[[float], float], top: float, *, named: bool) -> str:
    out = ""
    for key, name, anchor in (("first_minute", "first minute", "start"), ("steady_state", "steady state", "end")):
        period = facts.get(key)
        if not period:
            continue
        left, right = px(period["from_s"]), px(period["to_s"])
        out += (
            f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{_PANEL}" '
            f'fill="var(--muted)" fill-opacity="0.08"/>'
        )
        if named:
            words = f"{name}: median {period['p50_ms']:.3g} ms"
            x = left + 6 if anchor == "start" else right - 6
            out += (
                f'<text x="{x:.1f}" y="{top + 16}" text-anchor="{anchor}" font-size="12" '
                f'fill="var(--muted)">{escape(words)}</text>'
            )
    return out


def _onset(facts: Mapping[str, Any], px: Callable[[float], float], top: float, *, named: bool) -> str:
    onset = facts.get("throttle_onset_s")
    if onset is None:
        return ""
    x = px(onset)
    line = (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + _PANEL}" stroke="var(--failed)" '
        f'stroke-dasharray="5 4" stroke-width="1.5"/>'
    )
    if not named:
        return line
    anchor, shift = ("start", 6) if x < _WIDTH / 2 else ("end", -6)
    return (
        f'{line}<text x="{x + shift:.1f}" y="{top + _PANEL - 8}" text-anchor="{anchor}" font-size="12" '
        f'fill="var(--failed)">throttling from {onset:.0f} s</text>'
    )


def _time_axis(end: float, px: Callable[[float], float], base: float) -> str:
    minutes = end >= 3 * _MINUTE
    unit = _MINUTE if minutes else 1.0
    out = ""
    for tick in linear_ticks(0, end / unit):
        x = px(tick * unit)
        out += (
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle" font-size="12" fill="var(--muted)">{tick:g}</text>'
        )
    title = "minutes from the start" if minutes else "seconds from the start"
    return (
        f'{out}<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{base + 38}" text-anchor="middle" font-size="13" '
        f'fill="var(--ink)">{title}</text>'
    )


def _summary(facts: Mapping[str, Any], end: float) -> str:
    onset = facts.get("throttle_onset_s")
    found = "no throttling" if onset is None else f"throttling from {onset:.0f} s"
    return f"Sustained run of {end / _MINUTE:.1f} minutes, {found}"


def _whole(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"
