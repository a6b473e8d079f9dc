"""Pictures of the report as SVG text. Colours are CSS variables, so one picture serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from edgemill.recipe import Task
from edgemill.report.figures import bytes_text, drop_text, ordered, score_name, score_text, time_text
from edgemill.summary import Profile, TargetResult
from edgemill.validate.verdict import Verdict

PALETTE = {
    "--ink": "#1b1f24",
    "--muted": "#5b6570",
    "--line": "#d5dade",
    "--card": "#ffffff",
    "--accent": "#1f5fbf",
    "--selected": "#0b7a43",
    "--passed": "#0b7a43",
    "--inconclusive": "#b07400",
    "--failed": "#b3261e",
    "--dropped": "#7b858f",
}
"""Light colours, for a picture that stands alone."""

_WIDTH, _HEIGHT = 1160, 350
_PANEL = 512
_TOP, _BOTTOM = 34, 54
_LEFT = 66
_GAP = 56
_DOT = 6.0
_SOLID = ("selected", "passed")
_CROWDED = 12.0
_MOST_TICKS = 7
_FEWEST_TICKS = 3
_LABEL_SPOTS = (
    (0, -13),
    (13, 4),
    (-13, 4),
    (0, 22),
    (13, -9),
    (-13, -9),
    (13, 17),
    (-13, 17),
    (26, 4),
    (-26, 4),
    (0, -28),
)


@dataclass(frozen=True)
class _Point:
    x: float
    score: float
    label: str
    style: str
    tip: str


@dataclass(frozen=True)
class _Axis:
    title: str
    value: Callable[[Profile], float | None]
    text: Callable[[float], str]


@dataclass(frozen=True)
class _Chart:
    target: TargetResult
    baseline: Profile
    baseline_score: float
    task: Task
    margin: float
    span: tuple[float, float]


def pareto_svg(target: TargetResult, task: Task, margin: float, *, standalone: bool = False) -> str:
    """Time and size against the validation score, one dot a variant.

    Dots carry the numbers of the result table. The baseline is a diamond, the default has a ring,
    what failed or was dropped is hollow. Dots further below the margin than the picture reaches
    lie on its lower edge, as triangles.

    Args:
        target: with a baseline; without one the picture is empty text.
        task: sets the unit of the scores.
        margin: largest accepted drop, drawn as a dashed line.
        standalone: with its own light colours, to be stored as a file.
    """
    baseline = target.baseline
    if baseline is None or baseline.validation_score is None:
        return ""
    scores = [v.validation_score for v in target.variants if v.profile and v.validation_score is not None]
    if not scores:
        return ""
    top = max([*scores, baseline.validation_score])
    floor = baseline.validation_score - 3 * margin
    bottom = max(min([*scores, baseline.validation_score - margin]), floor)
    pad = 0.12 * (top - bottom)
    chart = _Chart(target, baseline.profile, baseline.validation_score, task, margin, (bottom - pad, top + pad))
    parts = [
        f'<svg class="pareto" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(score_name(task))} against time and size of the variants for {escape(target.target)}">',
    ]
    if standalone:
        parts.append(_standalone_style())
    known = [axis for axis in _axes(target) if _points(target, task, axis)]
    for index, axis in enumerate(known):
        parts.append(_panel(chart, axis, _LEFT + index * (_PANEL + _GAP), first=index == 0))
    parts.append("</svg>")
    return "".join(parts)


def _standalone_style() -> str:
    rules = ";".join(f"{name}:{value}" for name, value in PALETTE.items())
    return f"<style>svg{{{rules};background:#ffffff;font-family:sans-serif}}</style>"


def _axes(target: TargetResult) -> tuple[_Axis, _Axis]:
    drawn = [variant.profile for variant in target.variants if variant.profile]
    source = f", {target.source}" if target.source else ""
    if all(profile.latency_ratio is not None for profile in drawn):
        time = _Axis(f"time / time of the baseline{source}", _ratio, lambda value: f"{value:.3g}")
    else:
        time = _Axis(f"median time{source}", lambda profile: profile.latency_p50_ms, time_text)
    return time, _Axis("compressed size", lambda profile: float(profile.compressed_bytes), bytes_text)


def _ratio(profile: Profile) -> float | None:
    return profile.latency_ratio.estimate if profile.latency_ratio else 1.0


def _panel(chart: _Chart, axis: _Axis, left: float, *, first: bool) -> str:
    target, task, span = chart.target, chart.task, chart.span
    points = _points(target, task, axis)
    start = axis.value(chart.baseline)
    values = [point.x for point in points] + ([start] if start else [])
    if not values:
        return ""
    low, high = min(values) / 1.25, max(values) * 1.25

    def px(value: float) -> float:
        return left + _PANEL * (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))

    def py(score: float) -> float:
        share = (score - span[0]) / (span[1] - span[0])
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * min(1.0, max(0.0, share))

    out = [_frame(axis, left, (low, high), px), _score_axis(task, span, left, py, first=first)]
    out.append(_margin_line(py(chart.baseline_score - chart.margin), left, named=first))
    out.append(_front([point for point in points if point.style in _SOLID], px, py))
    taken: list[tuple[float, float]] = [(px(point.x), py(point.score)) for point in points]
    if start:
        x, y = px(start), py(chart.baseline_score)
        taken.append((x, y))
        out.append(
            f'<path d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z" fill="var(--accent)"><title>baseline, fp32: '
            f"{escape(axis.text(start))}, {escape(score_text(chart.baseline_score, task))}</title></path>"
        )
        out.append(_label("fp32", x, y, taken))
    for point in points:
        out.append(_dot(point, px(point.x), py(point.score), outside=point.score < span[0]))
    for point in points:
        out.append(_label(point.label, px(point.x), py(point.score), taken))
    return "".join(out)


def _margin_line(y: float, left: float, *, named: bool) -> str:
    line = (
        f'<line x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--failed)" '
        f'stroke-dasharray="5 4" stroke-width="1"/>'
    )
    if not named:
        return line
    return (
        f'{line}<text x="{left + _PANEL}" y="{y - 5:.1f}" text-anchor="end" font-size="12" fill="var(--failed)">'
        f"baseline less the margin</text>"
    )


def _points(target: TargetResult, task: Task, axis: _Axis) -> list[_Point]:
    points = []
    for number, variant in enumerate(ordered(target), start=1):
        value = axis.value(variant.profile) if variant.profile else None
        if value is None or value <= 0 or variant.validation_score is None:
            continue
        tip = f"{number} {variant.candidate}: {axis.text(value)}, {score_text(variant.validation_score, task)}"
        points.append(_Point(value, variant.validation_score, str(number), variant.status, f"{tip}, {variant.status}"))
    return points


def _frame(axis: _Axis, left: float, span: tuple[float, float], px: Callable[[float], float]) -> str:
    base = _HEIGHT - _BOTTOM
    out = [
        f'<line x1="{left}" x2="{left + _PANEL}" y1="{base}" y2="{base}" stroke="var(--muted)"/>',
        f'<text x="{left + _PANEL / 2}" y="{_HEIGHT - 12}" text-anchor="middle" font-size="13" '
        f'fill="var(--ink)">{escape(axis.title)}</text>',
    ]
    for tick in log_ticks(*span):
        x = px(tick)
        out.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}" stroke="var(--line)"/>'
            f'<text x="{x:.1f}" y="{base + 18}" text-anchor="middle" font-size="12" fill="var(--muted)">'
            f"{escape(axis.text(tick))}</text>"
        )
    return "".join(out)


def _score_axis(
    task: Task, span: tuple[float, float], left: float, py: Callable[[float], float], *, first: bool
) -> str:
    out = []
    for tick in linear_ticks(*span):
        y = py(tick)
        out.append(f'<line x1="{left}" x2="{left + _PANEL}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        if first:
            out.append(
                f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" font-size="12" fill="var(--muted)">'
                f"{escape(score_text(tick, task))}</text>"
            )
    if first:
        title = f"validation {score_name(task)}"
        out.append(f'<text x="6" y="18" font-size="13" fill="var(--ink)">{escape(title)}</text>')
    return "".join(out)


def _front(points: Sequence[_Point], px: Callable[[float], float], py: Callable[[float], float]) -> str:
    best = -math.inf
    path = ""
    for point in sorted(points, key=lambda item: (item.x, -item.score)):
        if point.score > best:
            best = point.score
            x, y = px(point.x), py(point.score)
            path += f"M{x:.1f} {y:.1f}" if not path else f"H{x:.1f}V{y:.1f}"
    return f'<path d="{path}" fill="none" stroke="var(--accent)" stroke-opacity="0.45" stroke-width="1.5"/>'


def _dot(point: _Point, x: float, y: float, *, outside: bool) -> str:
    colour = f"var(--{point.style})"
    fill = colour if point.style in _SOLID else "var(--card)"
    dash = ' stroke-dasharray="2.5 2"' if point.style == "dropped" else ""
    stroke = f'fill="{fill}" stroke="{colour}" stroke-width="2"{dash}'
    ring = ""
    if point.style == "selected":
        ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT + 4}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    if outside:
        shape = f'<path d="M{x - _DOT:.1f} {y - _DOT:.1f}h{2 * _DOT}l{-_DOT} {2 * _DOT}z" {stroke}>'
        return f"{shape}<title>{escape(point.tip)}</title></path>"
    return f'{ring}<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}" {stroke}><title>{escape(point.tip)}</title></circle>'


def _label(text: str, x: float, y: float, taken: list[tuple[float, float]]) -> str:
    """Put a label beside its dot, where it covers neither a dot nor another label."""
    half = 4.0 * len(text)

    def crowd(spot: tuple[int, int]) -> float:
        cx, cy = x + spot[0] + math.copysign(half, spot[0]) * (spot[0] != 0), y + spot[1] - 4
        nearest = [math.hypot((cx - tx) / (1 + half / 12), cy - ty) for tx, ty in taken]
        outside = cy < _TOP - 6 or cy > _HEIGHT - _BOTTOM
        return sum(1 for distance in nearest if distance < _CROWDED) + 10 * outside

    spot = min(_LABEL_SPOTS, key=crowd)
    anchor = "middle" if spot[0] == 0 else ("start" if spot[0] > 0 else "end")
    taken.append((x + spot[0] + math.copysign(half, spot[0]) * (spot[0] != 0), y + spot[1] - 4))
    return (
        f'<text x="{x + spot[0]:.1f}" y="{y + spot[1]:.1f}" text-anchor="{anchor}" font-size="12" font-weight="600" '
        f'fill="var(--ink)">{escape(text)}</text>'
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten inside [low, high], thinned to at most seven."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high]
    if len(inside) > _MOST_TICKS:
        inside = [tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    return inside if len(inside) > 1 else linear_ticks(low, high)


def linear_ticks(low: float, high: float) -> list[float]:
    """Three to six round ticks inside [low, high]."""
    step = 10.0 ** math.floor(math.log10((high - low) / _FEWEST_TICKS))
    step *= next((factor for factor in (5, 2) if (high - low) / (step * factor) >= _FEWEST_TICKS), 1)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step) + 1)]


def interval_svg(verdict: Verdict, task: Task) -> str:
    """A verdict as an interval on the axis of the drop: bounds, estimate, zero and the margin.

    The axis runs from -1 to 2.5 margins; what lies beyond ends in an arrow.
    """
    if verdict.lower is None or verdict.upper is None or verdict.estimate is None:
        return ""
    margin = verdict.margin
    low, high = -margin, 2.5 * margin
    width, height = 118, 20

    def px(value: float) -> float:
        return 4 + (width - 8) * (min(high, max(low, value)) - low) / (high - low)

    colour = f"var(--{verdict.verdict.value.lower()})"
    colour = colour.replace("--pass)", "--passed)").replace("--fail)", "--failed)")
    tip = (
        f"drop {drop_text(verdict.estimate, task)}, bounds {drop_text(verdict.lower, task)} and "
        f"{drop_text(verdict.upper, task)}, margin {drop_text(margin, task)}"
    )
    return (
        f'<svg class="interval" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(tip)}"><title>{escape(tip)}</title>'
        f'<line x1="{px(0):.1f}" x2="{px(0):.1f}" y1="3" y2="17" stroke="var(--muted)"/>'
        f'<line x1="{px(margin):.1f}" x2="{px(margin):.1f}" y1="1" y2="19" stroke="var(--failed)" '
        f'stroke-dasharray="3 2" stroke-width="1.5"/>'
        f'<line x1="{px(verdict.lower):.1f}" x2="{px(verdict.upper):.1f}" y1="10" y2="10" stroke="{colour}" '
        f'stroke-width="3" stroke-linecap="round"/>'
        f"{_estimate_mark(verdict.estimate, px, (low, high), colour)}</svg>"
    )


def _estimate_mark(estimate: float, px: Callable[[float], float], span: tuple[float, float], colour: str) -> str:
    if span[0] <= estimate <= span[1]:
        return f'<circle cx="{px(estimate):.1f}" cy="10" r="4" fill="{colour}"/>'
    way = 1 if estimate > span[1] else -1
    return f'<path d="M{px(estimate) + 3 * way:.1f} 10l{-8 * way} -5v10z" fill="{colour}"/>'
