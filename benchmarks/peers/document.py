"""The table as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import Claim

COLUMNS = (
    "#",
    "model",
    "runtime",
    "top-1",
    "drop, upper bound",
    "verdict 0.005",
    "verdict 0.01",
    "bytes",
    "gzip -9",
    "of fp32",
    "latency ratio (95 %)",
    "p95 ratio",
    "p50 us",
    "made in s",
    "peak MB",
)


def markdown(rows: Sequence[Mapping[str, Any]], claims: Sequence[Claim], facts: Sequence[str], picture: str) -> str:
    """The result for people.

    Args:
        rows: as `judge` gives them.
        claims: computed from the rows.
        facts: lines about how it was measured.
        picture: name of the SVG file beside it.
    """
    lines = ["# Edgemill and its peers on W1", "", *(f"- {fact}" for fact in facts), ""]
    lines += [f"![latency against compressed size]({picture})", ""]
    lines += [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    failed = []
    for number, row in enumerate(rows, start=1):
        if row["failure"]:
            failed.append(f"| {number} | {row['model']} | {_cell(row['failure'])} |")
        else:
            lines.append(f"| {' | '.join(_cells(number, row))} |")
    if failed:
        lines += ["", "## No result", "", "| # | model | why |", "| --- | --- | --- |", *failed]
    told = [f"- {row['model']}: {_cell(_notes(row['notes']))}" for row in rows if row["notes"] and row["who"] == "peer"]
    if told:
        lines += ["", "## What the peers told", "", *told]
    lines += ["", "## Claims", "", "| claim | value | bound | holds |", "| --- | --- | --- | --- |"]
    lines += [f"| {c.id} | {c.value:.4g} | {c.relation} {c.bound:.4g} | {'yes' if c.holds else 'NO'} |" for c in claims]
    return "\n".join(lines) + "\n"


def _cells(number: int, row: Mapping[str, Any]) -> list[str]:
    ratio = f"{row['latency_ratio']:.3f} ({row['latency_ratio_lower']:.3f} to {row['latency_ratio_upper']:.3f})"
    return [
        str(number),
        _cell(row["model"]),
        row["runtime"],
        f"{100 * row['accuracy']:.2f}",
        f"{100 * row['drop']:.2f}, {100 * row['drop_upper']:.2f}",
        row["verdict_005"],
        row["verdict_01"],
        f"{row['bytes']:,}",
        f"{row['compressed_bytes']:,}",
        f"1/{1 / row['compressed_ratio']:.3g}",
        ratio,
        f"{row['p95_ratio']:.3f}",
        f"{row['p50_us']:.1f}",
        _number(row["seconds"]),
        _number(row["peak_rss_mb"]),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _notes(notes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in notes.items())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
