"""Rows of text and bars as SVG, shared by the pictures that are tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from edgemill.report.charts import PALETTE

ROW, HEAD, PAD, CELL = 34, 40, 8, 150
"""Height of a row and of the heading, margin, and width of a cell with a bar, in pixels."""


def opening(name: str, width: int, height: int, label: str, *, standalone: bool) -> str:
    """The start of a picture; a standalone one has its own light colours."""
    style = ""
    if standalone:
        rules = ";".join(f"{key}:{value}" for key, value in PALETTE.items())
        style = f"<style>svg{{{rules};background:#ffffff;font-family:sans-serif}}</style>"
    return (
        f'<svg class="{name}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(label)}">{style}'
    )


def headings(lefts: Sequence[int], titles: Sequence[str]) -> str:
    """The line of column titles."""
    pairs = zip(lefts, titles, strict=True)
    return "".join(text(left, HEAD - 14, title, "--muted", bold=True) for left, title in pairs)


def rule(index: int, width: int) -> str:
    """The line above a row."""
    y = HEAD + ROW * index
    return f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="var(--line)"/>'


def line_of(index: int) -> int:
    """Where the text of a row stands."""
    return HEAD + ROW * index + ROW // 2 + 5


def span(values: Sequence[float | None]) -> tuple[float, float] | None:
    """What the bars of a column reach over; None where there is nothing to draw."""
    known = [value for value in values if value is not None and value > 0]
    return (min(known) / 2, max(known)) if known else None


def bar(left: int, index: int, value: float | None, over: tuple[float, float] | None, colour: str) -> str:
    """A bar behind a figure, on a logarithmic scale."""
    if not value or value < 0 or over is None:
        return ""
    low, high = over
    share = math.log(value / low) / math.log(high / low) if high > low else 1.0
    return (
        f'<rect x="{left - 4}" y="{HEAD + ROW * index + 6}" width="{max(3.0, share * (CELL - 20)):.1f}" '
        f'height="{ROW - 12}" rx="4" fill="var({colour})" fill-opacity="0.22"/>'
    )


def text(left: int, y: int, words: str, colour: str, *, bold: bool = False) -> str:
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{left}" y="{y}" font-size="14" fill="var({colour})"{weight}>{escape(words)}</text>'


def cut(words: str, length: int) -> str:
    """Words that fit."""
    return words if len(words) <= length else words[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"
