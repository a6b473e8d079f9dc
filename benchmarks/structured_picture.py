"""The picture of `benchmarks.structured`: accuracy and int8 time against the MACs that were kept, one line a method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

COLOURS = {"pruned": "#1f5fbf", "narrowed": "#9a6700", "both": "#1a7f37"}
WIDTH, HEIGHT, LEFT, TOP, GAP = 380, 260, 64, 64, 96
TICKS = 5


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the picture as SVG.

    Args:
        rows: of the benchmark, the checkpoint's among them.
        path: of the file.
    """
    panels = (
        ("fp32 accuracy on 10,000 test images", "accuracy", lambda value: f"{100 * value:.2f} %"),
        ("LiteRT int8 time, share of the fp32 checkpoint in onnxruntime", "litert_ratio", "{:.2f}".format),
    )
    width, height = LEFT + (WIDTH + GAP) * len(panels), TOP + HEIGHT + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for index, (method, colour) in enumerate(COLOURS.items()):
        x = LEFT + 110 * index
        parts.append(f'<circle cx="{x}" cy="20" r="4" fill="{colour}"/><text x="{x + 8}" y="24">{method}</text>')
    for index, (title, key, words) in enumerate(panels):
        parts += _panel(rows, title, key, words, LEFT + index * (WIDTH + GAP))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _panel(
    rows: Sequence[dict[str, Any]], title: str, key: str, words: Callable[[float], str], left: float
) -> list[str]:
    values = [row[key] for row in rows]
    margin = 0.08 * (max(values) - min(values))
    low, high = min(values) - margin, max(values) + margin
    fewest = math.log2(min(row["macs_kept"] for row in rows))

    def x(share: float) -> float:
        return left + WIDTH * (1 - math.log2(share) / fewest)

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - value) / (high - low)

    parts = [f'<text x="{left}" y="{TOP - 16}" font-size="13">{escape(title)}</text>']
    for step in range(TICKS):
        value = low + (high - low) * step / (TICKS - 1)
        parts.append(f'<path d="M{left} {y(value):.1f}H{left + WIDTH}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{words(value)}</text>')
    for share in sorted({row["share"] for row in rows}):
        parts.append(f'<text x="{x(share):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{share:g}</text>')
    middle, below = left + WIDTH / 2, TOP + HEIGHT + 36
    parts.append(f'<text x="{middle}" y="{below}" text-anchor="middle">MACs kept, logarithmic</text>')
    (whole,) = (row for row in rows if row["method"] == "checkpoint")
    for method, colour in COLOURS.items():
        line = [whole, *(row for row in rows if row["method"] == method)]
        points = [(x(row["macs_kept"]), y(row[key])) for row in line]
        joined = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts += [
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"><title>{method}, '
            f"{row['share']:g}: {words(row[key])}</title></circle>"
            for (across, down), row in zip(points, line, strict=True)
        ]
    return parts
