"""Latency against compressed size of all models, both as ratios to the fp32 ONNX, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from edgemill.report.charts import log_ticks

COLOURS = {"PASS": "#0b7a43", "INCONCLUSIVE": "#b07400", "FAIL": "#b3261e"}
SHAPES = {"edgemill": "Edgemill", "peer": "peer", "extra": "other model", "baseline": "checkpoint"}
INK, MUTED, LINE = "#1b1f24", "#5b6570", "#d5dade"
WIDTH, HEIGHT = 1120, 640
LEFT, TOP, RIGHT, BOTTOM = 70, 92, 330, 60
_PAD = 1.3
_RADII = (13, 21, 30, 42, 56, 72)
_ANGLES = 16
_CLEAR = 11.0
_LEADER = 16
_LINE_HEIGHT = 16.0

Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Scale:
    """A logarithmic axis."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Position of a value, pixels."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.stop - self.start)


def draw(rows: Sequence[Row], verdict: str, title: str, path: Path) -> None:
    """Write the picture.

    Dots are numbered as in the table; the key at the right names them. Nearer to the lower left is better.

    Args:
        rows: as `judge` gives them; those without a latency are left out.
        verdict: column whose verdict is the colour.
        title: first line.
        path: SVG file.
    """
    drawn = [(number, row) for number, row in enumerate(rows, start=1) if row.get("latency_ratio")]
    x = _scale([row["compressed_ratio"] for _, row in drawn], LEFT, WIDTH - RIGHT)
    y = _scale([row["latency_ratio"] for _, row in drawn], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}" role="img" aria-label="{escape(title)}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
        *_legend(),
        *_axes(x, y),
    ]
    places = [(x(row["compressed_ratio"]), y(row["latency_ratio"])) for _, row in drawn]
    taken = list(places)
    labels = []
    for (number, row), (px, py) in zip(drawn, places, strict=True):
        parts.append(_dot(row["who"], COLOURS.get(row.get(verdict, ""), MUTED), px, py, row["model"]))
        labels.append(_label(str(number), px, py, taken))
    parts += [*labels, *_key(drawn)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _scale(values: Sequence[float], start: float, stop: float) -> _Scale:
    return _Scale(min(values, default=1.0) / _PAD, max(values, default=1.0) * _PAD, start, stop)


def _legend() -> list[str]:
    parts = []
    for index, (word, colour) in enumerate(COLOURS.items()):
        left = LEFT + 8 + 125 * index
        parts.append(_dot("edgemill", colour, left, 44, word) + f'<text x="{left + 12}" y="48">{word}</text>')
    for index, (who, words) in enumerate(SHAPES.items()):
        left = LEFT + 8 + 125 * index
        parts.append(_dot(who, MUTED, left, 66, words) + f'<text x="{left + 12}" y="70">{words}</text>')
    return parts


def _axes(x: _Scale, y: _Scale) -> list[str]:
    base, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in log_ticks(x.low, x.high):
        parts.append(
            f'<path d="M{x(tick):.1f} {TOP}V{base}" stroke="{LINE}"/>'
            f'<text x="{x(tick):.1f}" y="{base + 18}" text-anchor="middle" fill="{MUTED}">1/{1 / tick:.3g}</text>'
            if tick < 1
            else f'<path d="M{x(tick):.1f} {TOP}V{base}" stroke="{LINE}"/>'
            f'<text x="{x(tick):.1f}" y="{base + 18}" text-anchor="middle" fill="{MUTED}">{tick:.3g}</text>'
        )
    for tick in log_ticks(y.low, y.high):
        parts.append(
            f'<path d="M{LEFT} {y(tick):.1f}H{end}" stroke="{LINE}"/>'
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="{MUTED}">{tick:.3g}</text>'
        )
    parts.append(f'<path d="M{LEFT} {TOP}V{base}H{end}" stroke="{MUTED}" fill="none"/>')
    parts.append(
        f'<text x="{(LEFT + end) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
        "bytes after gzip -9 / those of the fp32 ONNX</text>"
    )
    parts.append(
        f'<text transform="translate(20 {(TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
        "latency / latency of the fp32 ONNX in onnxruntime</text>"
    )
    return parts


def _dot(who: str, colour: str, x: float, y: float, name: str) -> str:
    paint = f'fill="{colour}" fill-opacity="0.85"'
    shape = {
        "edgemill": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" {paint}>',
        "baseline": f'<path d="M{x:.1f} {y - 8:.1f}l8 8l-8 8l-8 -8z" {paint}>',
        "extra": f'<path d="M{x - 6:.1f} {y + 5:.1f}h12l-6 -11z" {paint}>',
    }.get(who, f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" {paint}>')
    return f"{shape}<title>{escape(name)}</title></{shape[1:].split(' ', 1)[0]}>"


def _label(text: str, x: float, y: float, taken: list[tuple[float, float]]) -> str:
    """A number beside its dot, at the nearest spot that is clear of dots and of other numbers."""

    def crowd(spot: tuple[float, float]) -> int:
        return sum(math.hypot(spot[0] - tx, spot[1] - ty) < _CLEAR for tx, ty in taken)

    spots = [
        (x + radius * math.cos(angle), y + radius * math.sin(angle), radius)
        for radius in _RADII
        for angle in (2 * math.pi * turn / _ANGLES - math.pi / 2 for turn in range(_ANGLES))
    ]
    inside = [spot for spot in spots if LEFT < spot[0] < WIDTH - RIGHT and TOP < spot[1] < HEIGHT - BOTTOM]
    best = min(inside or spots, key=lambda spot: (crowd(spot[:2]), spot[2]))
    taken.append(best[:2])
    leader = ""
    if best[2] > _LEADER:
        leader = f'<path d="M{x:.1f} {y:.1f}L{best[0]:.1f} {best[1]:.1f}" stroke="{MUTED}" stroke-width="0.6"/>'
    return (
        f'{leader}<text x="{best[0]:.1f}" y="{best[1] + 4:.1f}" text-anchor="middle" font-size="11" '
        f'font-weight="600" stroke="#ffffff" stroke-width="3" paint-order="stroke">{text}</text>'
    )


def _key(drawn: Sequence[tuple[int, Row]]) -> list[str]:
    step = min(_LINE_HEIGHT, (HEIGHT - TOP - 10) / max(1, len(drawn)))
    parts = []
    for line, (number, row) in enumerate(drawn):
        weight = ' font-weight="600"' if row["who"] == "edgemill" else ""
        parts.append(
            f'<text x="{WIDTH - RIGHT + 20}" y="{TOP + line * step:.1f}" font-size="11"{weight}>'
            f"{number}  {escape(row['model'])}</text>"
        )
    return parts
