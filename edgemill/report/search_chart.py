"""Picture of a search: Pareto front, importance of each knob, and hypervolume over trials, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from edgemill.recipe import Goal
from edgemill.report.charts import PALETTE, linear_ticks, log_ticks
from edgemill.search.record import Importance, SearchRecord, TrialRecord, TrialState

_WIDTH, _HEIGHT = 1160, 420
_TOP, _BOTTOM = 44, 366
_FRONT_LEFT, _FRONT_RIGHT = 62, 560
_BARS_LEFT, _BARS_RIGHT = 612, 836
_GROWTH_LEFT, _GROWTH_RIGHT = 912, 1146
_LETTER = 6.5
_LINE_HEIGHT = 13.0
_DOT = 5.5
_NAMED = 8
_PAD = 0.08
_AXES = {
    Goal.LATENCY: "time / time of the baseline",
    Goal.COMPRESSED_BYTES: "compressed bytes / bytes of the baseline",
    Goal.MACS: "MACs / MACs of the checkpoint",
    Goal.ENERGY: "energy / energy of the baseline",
}
_QUANTITIES = {
    "latency": "time",
    "compressed_bytes": "compressed bytes",
    "macs": "MACs",
    "energy": "energy",
    "accuracy_drop": "accuracy drop",
}
_WORDS = {
    TrialState.COMPLETE: "within the budget",
    TrialState.INFEASIBLE: "over the budget",
    TrialState.PRUNED: "stopped after its short training",
}

Scale = Callable[[float], float]


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: _Box) -> float:
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0


def search_svg(record: SearchRecord, *, standalone: bool = False) -> str:
    """Three panels side by side; one with nothing to show says so.

    Args:
        record: of the search.
        standalone: with its own light colours, to be stored as a file.

    Returns:
        SVG text; empty where no trial was measured.
    """
    drawn = [trial for trial in record.trials if trial.state in _WORDS and len(trial.values) == len(record.goals)]
    if not drawn:
        return ""
    parts = [
        f'<svg class="search" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(_summary(record))}">'
    ]
    if standalone:
        rules = ";".join(f"{name}:{value}" for name, value in PALETTE.items())
        parts.append(f"<style>svg{{{rules};background:#ffffff;font-family:sans-serif}}</style>")
    parts.append(_front_panel(record, drawn))
    parts.append(_importance_panel(record.importance))
    parts.append(_growth_panel(record))
    parts.append("</svg>")
    return "".join(parts)


def _summary(record: SearchRecord) -> str:
    gain = record.hypervolume[-1] if record.hypervolume else 0.0
    return f"Search of {len(record.trials)} trials, {len(record.front)} on the front, hypervolume {gain:.2f}"


# -- the front -----------------------------------------------------------------------------------


def _front_panel(record: SearchRecord, drawn: Sequence[TrialRecord]) -> str:
    first, second = record.goals[0], record.goals[-1]
    if first is second:
        return _sorted_panel(record, drawn)
    px, x_axis = _log_axis([trial.values[first] for trial in drawn], (_FRONT_LEFT, _FRONT_RIGHT), _AXES[first], True)
    py, y_axis = _log_axis([trial.values[second] for trial in drawn], (_BOTTOM, _TOP), _AXES[second], False)
    front = {name: place for place, name in enumerate(record.front)}
    dots: list[str] = []
    taken: list[_Box] = []
    ranked = sorted(drawn, key=lambda trial: (trial.name in front, trial.state is TrialState.COMPLETE))
    for trial in ranked:
        x, y = px(trial.values[first]), py(trial.values[second])
        taken.append(_Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT))
        dots.append(_dot(trial, x, y, on_front=trial.name in front and trial.state is TrialState.COMPLETE))
    best = [trial for trial in drawn if trial.name in front and trial.state is TrialState.COMPLETE]
    best.sort(key=lambda trial: trial.values[first])
    path = ""
    for trial in best:
        x, y = px(trial.values[first]), py(trial.values[second])
        path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
    line = f'<path d="{path}" fill="none" stroke="var(--passed)" stroke-opacity="0.5" stroke-width="1.5"/>'
    labels = [_label(trial.name, px(trial.values[first]), py(trial.values[second]), taken) for trial in best[:_NAMED]]
    return "".join([x_axis, y_axis, line, *dots, *labels, _legend(drawn)])


def _sorted_panel(record: SearchRecord, drawn: Sequence[TrialRecord]) -> str:
    """With one goal there is no front: the trials in their order."""
    goal = record.goals[0]
    py, y_axis = _log_axis([trial.values[goal] for trial in drawn], (_BOTTOM, _TOP), _AXES[goal], False)
    last = max(trial.number for trial in drawn)
    px, x_axis = _count_axis(last + 1, (_FRONT_LEFT, _FRONT_RIGHT))
    taken: list[_Box] = []
    dots = []
    for trial in drawn:
        x, y = px(trial.number + 1), py(trial.values[goal])
        taken.append(_Box(x - _DOT, y - _DOT, x + _DOT, y + _DOT))
        dots.append(_dot(trial, x, y, on_front=trial.name in record.front and trial.state is TrialState.COMPLETE))
    labels = [
        _label(trial.name, px(trial.number + 1), py(trial.values[goal]), taken)
        for trial in drawn
        if trial.name in record.front and trial.state is TrialState.COMPLETE
    ]
    return "".join([x_axis, y_axis, *dots, *labels, _legend(drawn)])


def _dot(trial: TrialRecord, x: float, y: float, *, on_front: bool) -> str:
    figures = ", ".join(f"{goal.value} {value:.3g}" for goal, value in trial.values.items())
    score = "" if trial.score is None else f", score {trial.score:.4f}"
    tip = escape(f"{trial.name}: {figures}{score}, {_WORDS.get(trial.state, trial.state.value)}")
    if trial.state is not TrialState.COMPLETE:
        dash = ' stroke-dasharray="2 2"' if trial.state is TrialState.PRUNED else ""
        style = f'fill="var(--card)" stroke="var(--dropped)" stroke-width="1.5" stroke-opacity="0.8"{dash}'
    elif on_front:
        style = 'fill="var(--passed)" stroke="var(--passed)" stroke-width="2"'
    else:
        style = 'fill="var(--card)" stroke="var(--accent)" stroke-width="2"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_DOT}" {style}><title>{tip}</title></circle>'


def _label(text: str, x: float, y: float, taken: list[_Box]) -> str:
    """Put a name beside its dot, where it covers least."""
    wide = _LETTER * len(text)
    spots = [(side, x + side * 10, y + down) for down in (4, -9, 17, -22, 30, -35, 43, -48, 56) for side in (1, -1)]

    def box(spot: tuple[int, float, float]) -> _Box:
        side, at, base = spot
        left = at if side > 0 else at - wide
        return _Box(left, base - _LINE_HEIGHT + 3, left + wide, base + 3)

    def crowd(spot: tuple[int, float, float]) -> float:
        one = box(spot)
        outside = max(0.0, _FRONT_LEFT - one.left) + max(0.0, one.right - _BARS_LEFT + 20) + max(0.0, _TOP - one.top)
        outside += max(0.0, one.bottom - _BOTTOM)
        return sum(one.overlap(other) for other in taken) + 100 * outside

    spot = min(spots, key=crowd)
    taken.append(box(spot))
    side, at, base = spot
    return (
        f'<text x="{at:.1f}" y="{base:.1f}" text-anchor="{"start" if side > 0 else "end"}" font-size="12" '
        f'font-weight="600" fill="var(--ink)">{escape(text)}</text>'
    )


def _legend(drawn: Sequence[TrialRecord]) -> str:
    states = {trial.state for trial in drawn}
    items = [("var(--passed)", "var(--passed)", "front"), ("var(--card)", "var(--accent)", "within the budget")]
    if TrialState.INFEASIBLE in states:
        items.append(("var(--card)", "var(--dropped)", "over the budget"))
    if TrialState.PRUNED in states:
        items.append(("var(--card)", "var(--dropped)", "stopped early"))
    x, out = float(_FRONT_LEFT), []
    for fill, stroke, words in items:
        dash = ' stroke-dasharray="2 2"' if words == "stopped early" else ""
        out.append(
            f'<circle cx="{x + 6:.1f}" cy="17" r="{_DOT}" fill="{fill}" stroke="{stroke}" stroke-width="2"{dash}/>'
            f'<text x="{x + 17:.1f}" y="21" font-size="12" fill="var(--muted)">{words}</text>'
        )
        x += 34 + _LETTER * len(words)
    return "".join(out)


# -- importance ----------------------------------------------------------------------------------


def _importance_panel(importance: Sequence[Importance]) -> str:
    out = [_title("what each knob decides", _BARS_LEFT)]
    y = float(_TOP + 12)
    for item in importance:
        words = _QUANTITIES.get(item.of, item.of)
        out.append(
            f'<text x="{_BARS_LEFT}" y="{y:.0f}" font-size="12" font-weight="600" '
            f'fill="var(--ink)">{escape(words)}</text>'
        )
        y += 17
        if not item.shares:
            for line in _wrapped(item.reason or "", (_BARS_RIGHT - _BARS_LEFT) / _LETTER):
                out.append(
                    f'<text x="{_BARS_LEFT}" y="{y:.0f}" font-size="12" fill="var(--muted)">{escape(line)}</text>'
                )
                y += 16
        for name, share in item.shares.items():
            out.append(_bar(name, share, y))
            y += 17
        y += 12
    return "".join(out)


def _bar(name: str, share: float, y: float) -> str:
    start, room = _BARS_LEFT + 62, _BARS_RIGHT - _BARS_LEFT - 62 - 40
    width = max(1.0, room * share)
    return (
        f'<text x="{start - 6}" y="{y:.0f}" text-anchor="end" font-size="12" fill="var(--muted)">{escape(name)}</text>'
        f'<rect x="{start}" y="{y - 10:.0f}" width="{width:.1f}" height="12" rx="2" fill="var(--accent)"/>'
        f'<text x="{start + width + 5:.1f}" y="{y:.0f}" font-size="12" fill="var(--ink)">{share:.0%}</text>'
    )


def _wrapped(text: str, letters: float) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# -- growth --------------------------------------------------------------------------------------


def _growth_panel(record: SearchRecord) -> str:
    unit = "decades" if len(record.goals) == 1 else f"decades^{len(record.goals)}"
    unit = unit.replace("^2", "\N{SUPERSCRIPT TWO}").replace("^3", "\N{SUPERSCRIPT THREE}")
    out = [_title(f"hypervolume below the baseline, {unit}", _GROWTH_LEFT - 44)]
    values = record.hypervolume
    high = max(values, default=0.0) * (1 + _PAD) or 1.0
    px, axis = _count_axis(max(1, len(values)), (_GROWTH_LEFT, _GROWTH_RIGHT))

    def py(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * value / high

    out.append(axis)
    for tick in linear_ticks(0, high):
        out.append(_tick_y(py(tick), f"{tick:.3g}", (_GROWTH_LEFT, _GROWTH_RIGHT)))
    path = f"M{px(0):.1f} {py(0):.1f}"
    for number, value in enumerate(values, 1):
        path += f"H{px(number):.1f}V{py(value):.1f}"
    out.append(f'<path d="{path}" fill="none" stroke="var(--accent)" stroke-width="2"/>')
    if values:
        out.append(
            f'<text x="{_GROWTH_RIGHT}" y="{py(values[-1]) - 7:.1f}" text-anchor="end" font-size="12" '
            f'font-weight="600" fill="var(--ink)">{values[-1]:.3g}</text>'
        )
    return "".join(out)


# -- axes ----------------------------------------------------------------------------------------


def _log_axis(values: Sequence[float], span: tuple[float, float], title: str, flat: bool) -> tuple[Scale, str]:
    """A logarithmic scale with its ticks and its title, along the bottom or the left."""
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = _PAD * (high - low) or 0.1
    low, high = low - pad, high + pad
    start, end = span

    def at(value: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    out = []
    for tick in log_ticks(10**low, 10**high):
        if flat:
            out.append(_tick_x(at(tick), f"{tick:.3g}"))
        else:
            out.append(_tick_y(at(tick), f"{tick:.3g}", (_FRONT_LEFT, _FRONT_RIGHT)))
    if flat:
        out.append(_axis_title(title, (start + end) / 2))
    else:
        middle = (start + end) / 2
        out.append(
            f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle" font-size="13" '
            f'fill="var(--ink)">{escape(title)}</text>'
        )
    return at, "".join(out)


def _count_axis(count: int, span: tuple[float, float]) -> tuple[Scale, str]:
    start, end = span

    def at(number: float) -> float:
        return start + (end - start) * number / count

    whole = [tick for tick in linear_ticks(0, count) if tick == int(tick)] if count >= 3 else [0.0, float(count)]
    line = f'<line x1="{start}" x2="{end}" y1="{_BOTTOM}" y2="{_BOTTOM}" stroke="var(--muted)"/>'
    return at, line + "".join(_tick_x(at(tick), f"{tick:.0f}") for tick in whole) + _axis_title(
        "trials", (start + end) / 2
    )


def _tick_x(x: float, text: str) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_BOTTOM}" y2="{_BOTTOM + 5}" stroke="var(--muted)"/>'
        f'<text x="{x:.1f}" y="{_BOTTOM + 19}" text-anchor="middle" font-size="12" fill="var(--muted)">{text}</text>'
    )


def _tick_y(y: float, text: str, span: tuple[float, float]) -> str:
    return (
        f'<line x1="{span[0]}" x2="{span[1]}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        f'<text x="{span[0] - 7}" y="{y + 4:.1f}" text-anchor="end" font-size="12" fill="var(--muted)">{text}</text>'
    )


def _axis_title(text: str, x: float) -> str:
    return (
        f'<text x="{x:.0f}" y="{_BOTTOM + 42}" text-anchor="middle" font-size="13" '
        f'fill="var(--ink)">{escape(text)}</text>'
    )


def _title(text: str, x: float) -> str:
    return f'<text x="{x}" y="21" font-size="13" fill="var(--ink)">{escape(text)}</text>'
