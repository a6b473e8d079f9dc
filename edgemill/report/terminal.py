"""The report as a rich renderable for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgemill.report import figures
from edgemill.summary import Profile, Status, Summary, TargetResult, VariantResult
from edgemill.validate.verdict import Decision

_VERDICT_STYLES = {Decision.PASS: "bold green", Decision.FAIL: "bold red", Decision.INCONCLUSIVE: "bold yellow"}
_STATUS_STYLES = {
    Status.SELECTED: "bold green",
    Status.PASSED: "green",
    Status.INCONCLUSIVE: "yellow",
    Status.FAILED: "red",
    Status.DROPPED: "dim",
    Status.UNPROVEN: "dim",
}


def render_terminal(summary: Summary) -> RenderableType:
    """One table a target, with reasons below it, and the exit status' meaning."""
    parts: list[RenderableType] = []
    for target in summary.targets:
        parts += [*_target(target, summary), Text()]
    if summary.search is not None:
        parts += [Text(f"search: {figures.search_text(summary.search)}", style="dim"), Text()]
    return Group(*parts)


def _target(target: TargetResult, summary: Summary) -> list[RenderableType]:
    heading = Text.assemble(
        (target.target, "bold"),
        "  ",
        (target.outcome, _VERDICT_STYLES[target.verdict] if target.counts else "dim"),
        "  ",
    )
    if target.source:
        heading.append(f"times {target.source}", style="dim")
    parts: list[RenderableType] = [heading]
    if not target.counts:
        parts.append(Text(f"  {target.skipped or target.unproven}", style="dim"))
    if target.failure:
        parts.append(Text(f"  {target.failure}", style="red"))
    if target.variants or target.baseline:
        parts.append(_table(target, summary))
    parts += [
        Text(f"  {variant.candidate}: {variant.reason}", style="dim")
        for variant in figures.ordered(target)
        if variant.status in (Status.FAILED, Status.INCONCLUSIVE) and variant.reason
    ]
    parts += [
        Text(f"  {variant.candidate} is not faster: {variant.slow_because[0].title}", style="dim")
        for variant in figures.ordered(target)
        if variant.slow_because
    ]
    parts += [
        Text(f"  missing: {text}", style="yellow")
        for text in dict.fromkeys(text for variant in target.variants for text in variant.missing)
    ]
    dropped = sum(variant.status is Status.DROPPED for variant in target.variants)
    if dropped:
        parts.append(Text(f"  {dropped} dropped before the gate; the report says why, one by one", style="dim"))
    chosen = target.selected_variant
    if chosen is not None and chosen.arithmetic is not None and chosen.arithmetic.is_notable:
        remarks = "; ".join(chosen.arithmetic.remarks)
        parts.append(
            Text(f"  answers {chosen.arithmetic.source}{': ' if remarks else ''}{remarks}", style="dim italic")
        )
    if figures.source_note(target.source):
        parts.append(Text(f"  {figures.source_note(target.source)}", style="dim italic"))
    return parts


def _table(target: TargetResult, summary: Summary) -> Table:
    task = summary.task
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("candidate", "verdict"):
        table.add_column(name, no_wrap=True)
    for name in (figures.score_name(task), "drop", "p50", "RAM" if _on_device(target) else "ratio", "gzip"):
        table.add_column(name, justify="right", no_wrap=True)
    if target.baseline is not None:
        profile = target.baseline.profile
        table.add_row(
            "checkpoint, fp32",
            "baseline",
            figures.score_text(target.baseline.accuracy, task),
            "",
            figures.time_text(profile.latency_p50_ms),
            "" if _on_device(target) else "1",
            figures.bytes_text(profile.compressed_bytes),
            style="dim",
        )
    for variant in figures.ordered(target):
        table.add_row(*_cells(variant, summary), style="dim" if variant.status is Status.DROPPED else "")
    return table


def _cells(variant: VariantResult, summary: Summary) -> list[RenderableType]:
    task, profile = summary.task, variant.profile
    return [
        Text(variant.candidate),
        Text(str(variant.status), style=_STATUS_STYLES[variant.status]),
        figures.score_text(variant.accuracy, task),
        figures.bound_text(variant.drop_check, task),
        figures.time_text(profile.latency_p50_ms) if profile else figures.NONE,
        _ratio_or_ram(profile),
        figures.bytes_text(profile.compressed_bytes) if profile else figures.NONE,
    ]


def _on_device(target: TargetResult) -> bool:
    """Whether the figures are those of a device's own tools."""
    return any(variant.profile is not None and variant.profile.device is not None for variant in target.variants)


def _ratio_or_ram(profile: Profile | None) -> str:
    if profile is not None and profile.device is not None:
        return figures.bytes_text(profile.ram_bytes)
    ratio = profile.latency_ratio if profile is not None else None
    return f"{ratio.estimate:.3f}" if ratio else figures.NONE
