"""The picture of an advice: choices in their order with their figures, and what is none with the reason."""

from __future__ import annotations

from collections.abc import Callable
from xml.sax.saxutils import escape

from edgemill.advise import Advice, Evidence, Figure, Option
from edgemill.report.figures import NONE, bytes_text, time_text
from edgemill.report.rows import CELL, HEAD, PAD, ROW, bar, cut, headings, line_of, opening, rule, span, text

_NAME, _CANDIDATE = 220, 260
_COLOURS = {
    Evidence.LISTED: "--muted",
    Evidence.MEASURED: "--passed",
    Evidence.SIMULATED: "--accent",
    Evidence.ESTIMATED: "--inconclusive",
    Evidence.UNKNOWN: "--dropped",
}
_MOST = 40
"""Rows beyond which a picture is no longer looked at."""

Column = tuple[str, Callable[[Option], Figure], Callable[[float], str]]

_COLUMNS: tuple[Column, ...] = (
    ("time, p95", lambda option: option.latency_ms, time_text),
    ("energy", lambda option: option.energy_mj, lambda value: f"{value:.3g} mJ"),
    ("score", lambda option: option.accuracy, lambda value: f"{value:.4f}"),
    ("RAM", lambda option: option.ram_bytes, bytes_text),
    ("compressed", lambda option: option.compressed_bytes, bytes_text),
    ("one device", lambda option: option.cost_usd, lambda value: f"{value:,.0f} USD"),
)


def advice_svg(advice: Advice) -> str:
    """A picture that stands alone: one row an option, bars on logarithmic scales, coloured by what they rest on."""
    shown = advice.options[:_MOST]
    width = _NAME + _CANDIDATE + CELL * len(_COLUMNS)
    height = HEAD + ROW * (len(shown) + 1) + PAD
    lefts = [PAD, _NAME, *(_NAME + _CANDIDATE + CELL * index for index in range(len(_COLUMNS)))]
    titles = ["target", "candidate", *(title for title, *_ in _COLUMNS)]
    spans = [span([figure(option).value for option in shown if not option.excluded]) for _, figure, _ in _COLUMNS]
    parts = [
        opening("advice", width, height, "devices and variants in order", standalone=True),
        headings(lefts, titles),
    ]
    for index, option in enumerate(shown):
        parts.append(rule(index, width))
        parts.append(_choice(index, option, lefts, spans) if not option.excluded else _excluded(index, option, lefts))
    parts += [rule(len(shown), width), _legend(len(shown))]
    return "".join([*parts, "</svg>"])


def _choice(index: int, option: Option, lefts: list[int], spans: list[tuple[float, float] | None]) -> str:
    y = line_of(index)
    star = "\N{BLACK STAR} " if option.best else ""
    out = [
        text(lefts[0], y, f"{star}{option.target}", "--ink", bold=True),
        text(lefts[1], y, cut(option.candidate, 34), "--ink"),
    ]
    for (title, figure, words), left, over in zip(_COLUMNS, lefts[2:], spans, strict=True):
        found = figure(option)
        if title != "score":
            out.append(bar(left, index, found.value, over, _COLOURS[found.evidence]))
        shown = NONE if found.value is None else words(found.value)
        out.append(f"<g><title>{escape(found.source or 'unknown')}</title>{text(left, y, shown, '--ink')}</g>")
    return "".join(out)


def _excluded(index: int, option: Option, lefts: list[int]) -> str:
    y, reason = line_of(index), "; ".join(option.excluded)
    return (
        text(lefts[0], y, option.target, "--muted")
        + text(lefts[1], y, cut(option.candidate, 34), "--muted")
        + f"<g><title>{escape(reason)}</title>{text(lefts[2], y, cut(reason, 125), '--muted')}</g>"
    )


def _legend(index: int) -> str:
    y, left, out = line_of(index), PAD, []
    for evidence, colour in _COLOURS.items():
        if evidence is Evidence.UNKNOWN:
            continue
        out.append(
            f'<rect x="{left}" y="{y - 13}" width="16" height="16" rx="4" fill="var({colour})" fill-opacity="0.4"/>'
        )
        out.append(text(left + 22, y, evidence.value, "--muted"))
        left += 120
    out.append(
        text(left, y, "\N{BLACK STAR} nothing else is as good in everything; grey rows: excluded, and why", "--muted")
    )
    return "".join(out)
