"""The report as Markdown, for places that show nothing else (Prefect artifacts, pull requests)."""

from __future__ import annotations

import re

from edgemill.report import figures
from edgemill.summary import Summary, TargetResult, VariantResult
from edgemill.validate import words


def render_markdown(summary: Summary) -> str:
    """Verdicts, one result table a target, reasons, and the command."""
    task, budget = summary.task, summary.budget
    margin = figures.margin_text(budget.max_accuracy_drop, task)
    lines = [
        f"# {_cell(summary.name)}",
        "",
        f"{summary.checkpoint.format} checkpoint `{summary.checkpoint.digest[:12]}`, {_cell(summary.data.source)}; "
        f"accepted drop {margin} at {100 * budget.confidence:.4g} % confidence.",
        "",
        "| target | verdict | default | faster | smaller | drop | times |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    lines += [_overview(target, summary) for target in summary.targets]
    for target in summary.targets:
        lines += ["", *_target(target, summary)]
    if summary.search is not None:
        lines += ["", f"Search: {_cell(figures.search_text(summary.search))}."]
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", summary.command)), default=2))
    lines += ["", "Do it again:", "", f"{fence}sh", summary.command, fence, ""]
    return "\n".join(lines)


def _overview(target: TargetResult, summary: Summary) -> str:
    chosen = target.selected_variant
    profile = chosen.profile if chosen else None
    drop = figures.drop_text(chosen.verdict.estimate, summary.task) if chosen and chosen.verdict else figures.NONE
    bound = figures.bound_text(chosen.verdict, summary.task) if chosen else ""
    return _row(
        target.target,
        f"**{target.outcome}**",
        chosen.candidate if chosen else figures.NONE,
        figures.times_text(figures.speedup(profile)),
        figures.times_text(figures.shrinkage(profile, target.baseline)),
        f"{drop} ({bound})" if bound else drop,
        target.source or figures.NONE,
    )


def _target(target: TargetResult, summary: Summary) -> list[str]:
    task = summary.task
    lines = [f"## {_cell(target.target)}: {target.outcome}", ""]
    note = figures.source_note(target.source)
    if note:
        lines += [note, ""]
    if not target.counts:
        lines += [_cell(target.skipped or target.unproven or ""), ""]
    if target.failure:
        lines += [_cell(target.failure), ""]
    lines += [
        f"| # | candidate | verdict | {figures.score_name(task)} | drop | bound | p50 | p95 | time ratio | file "
        "| compressed | peak RSS | times |",
        "| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    if target.baseline is not None:
        profile = target.baseline.profile
        lines.append(
            _row(
                "",
                "checkpoint, fp32",
                "baseline",
                figures.score_text(target.baseline.accuracy, task),
                "",
                "",
                figures.time_text(profile.latency_p50_ms),
                figures.time_text(profile.latency_p95_ms),
                "1",
                figures.bytes_text(profile.size_bytes),
                figures.bytes_text(profile.compressed_bytes),
                figures.bytes_text(profile.peak_rss_bytes),
                profile.source,
            )
        )
    variants = figures.ordered(target)
    lines += [_variant(number, variant, summary) for number, variant in enumerate(variants, start=1)]
    reasons = [variant for variant in variants if not variant.passed and variant.reason]
    if reasons:
        lines += ["", *(f"- **{_cell(v.candidate)}** {v.status}: {_cell(v.reason)}" for v in reasons)]
    return lines + _evidence(target)


def _evidence(target: TargetResult) -> list[str]:
    lines: list[str] = []
    for variant in figures.ordered(target):
        name = f"**{_cell(variant.candidate)}**"
        lines += [
            f"- {name} {check.gate} {check.verdict}: {_cell(words.interval_text(check))}, n {check.n:,}"
            for check in (variant.checks if variant.further_checks else ())
        ]
        if variant.arithmetic is not None and variant.arithmetic.is_notable:
            remarks = "; ".join(variant.arithmetic.remarks)
            lines.append(
                f"- {name} answers {_cell(variant.arithmetic.source)}{': ' if remarks else ''}{_cell(remarks)}"
            )
        lines += [f"- {name} missing: {_cell(text)}" for text in variant.missing]
        if variant.versions is not None:
            lines.append(f"- {name} {_cell(figures.versions_text(variant.versions))}")
        lines += [f"- {name} not faster: {_cell(cause.title)}. {_cell(cause.text)}" for cause in variant.slow_because]
    return ["", *lines] if lines else []


def _variant(number: int, variant: VariantResult, summary: Summary) -> str:
    task, profile, verdict = summary.task, variant.profile, variant.drop_check
    times = (
        (
            figures.time_text(profile.latency_p50_ms),
            figures.time_text(profile.latency_p95_ms),
            figures.ratio_text(profile.latency_ratio),
            figures.bytes_text(profile.size_bytes),
            figures.bytes_text(profile.compressed_bytes),
            figures.bytes_text(profile.peak_rss_bytes),
            profile.source,
        )
        if profile
        else (figures.NONE,) * 7
    )
    return _row(
        str(number),
        variant.candidate,
        str(variant.status),
        figures.score_text(variant.accuracy, task),
        figures.drop_text(verdict.estimate if verdict else None, task),
        figures.bound_text(verdict, task),
        *times,
    )


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell if cell.startswith("**") else _cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    plain = " ".join(text.split())
    return "".join("\\" + letter if letter in "\\`*_[]<>|#" else letter for letter in plain)
