"""The gate's answer as Markdown, for job summaries and pull requests."""

from __future__ import annotations

from edgemill.gate.report import GateReport
from edgemill.validate.verdict import Decision, Verdict
from edgemill.validate.words import bounds_text, margin_text, number_text, worst_groups

_MARKS = {Decision.PASS: "✅", Decision.FAIL: "❌", Decision.INCONCLUSIVE: "❔"}


def render_markdown(report: GateReport) -> str:
    """Verdict, a row for each check, and what was compared."""
    main = report.checks[0]
    lines = [
        f"## {_MARKS[report.verdict]} {_cell(report.model)}: {report.verdict}",
        "",
        _cell(report.facts.verdict.reason[:1].upper() + report.facts.verdict.reason[1:]) + ".",
        "",
        f"| check | verdict | estimate | bounds ({100 * main.confidence:.4g} % each) | margin | n | method |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
        *map(_row, report.checks),
        "",
    ]
    undecided = [check for check in report.checks if check.verdict is not Decision.PASS]
    lines += [f"- **{_cell(check.gate)}** {check.verdict}: {_cell(check.reason)}" for check in undecided]
    worst = {check.gate: worst_groups(report.facts.groups, check) for check in report.checks}
    groups = [f"- {_cell(gate)}, worst: {_cell(text)}" for gate, text in worst.items() if text]
    lines += [*groups, ""] if undecided or groups else []
    lines += [
        f"{report.size_bytes:,} bytes, {report.kind}, SHA-256 `{report.digest}`; "
        f"against checkpoint `{report.checkpoint_digest[:12]}` on {report.samples:,} test samples "
        f"of data `{report.data_digest[:12]}`; answers {report.source}{_note(report)}.",
        "",
        f"`{report.command.replace('`', '')}`",
        "",
    ]
    return "\n".join(lines)


def _note(report: GateReport) -> str:
    return f" ({_cell(report.note)})" if report.note else ""


def _row(check: Verdict) -> str:
    cells = (
        check.gate,
        f"{_MARKS[check.verdict]} {check.verdict}",
        number_text(check.estimate, check),
        bounds_text(check),
        margin_text(check),
        f"{check.n:,}",
        check.method,
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
