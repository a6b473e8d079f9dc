"""The report as one self-contained HTML file: no script, no address outside of it."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgemill.report import charts, figures
from edgemill.summary import Status, Summary, TargetResult, VariantResult

_STATUS_WORDS = {
    Status.SELECTED: "PASS · default",
    Status.PASSED: "PASS",
    Status.DROPPED: "dropped",
    Status.FAILED: "FAIL",
    Status.INCONCLUSIVE: "INCONCLUSIVE",
}


def render_html(summary: Summary) -> str:
    """The whole report; write it as UTF-8."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    files = resources.files("edgemill.report")
    template = environment.from_string((files / "report.html.j2").read_text(encoding="utf-8"))
    margin = summary.budget.max_accuracy_drop

    def pareto(target: TargetResult) -> Markup:
        return Markup(charts.pareto_svg(target, summary.task, margin))

    def interval(variant: VariantResult) -> Markup:
        return Markup(charts.interval_svg(variant.verdict, summary.task) if variant.verdict else "")

    return template.render(
        summary=summary,
        task=summary.task,
        css=Markup((files / "report.css").read_text(encoding="utf-8")),
        figures=figures,
        pareto=pareto,
        interval=interval,
        status_word=lambda status: _STATUS_WORDS[status],
    )
