"""The report as one self-contained HTML file: no script, no address outside of it."""

from __future__ import annotations

from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgemill.report import charts, figures
from edgemill.report.matrix import FEWEST, matrix_svg
from edgemill.report.search_chart import search_svg
from edgemill.report.sustained_chart import sustained_svg
from edgemill.summary import Status, Summary, TargetResult, VariantResult
from edgemill.validate import words

_STATUS_WORDS = {
    Status.SELECTED: "PASS · default",
    Status.PASSED: "PASS",
    Status.DROPPED: "dropped",
    Status.FAILED: "FAIL",
    Status.INCONCLUSIVE: "INCONCLUSIVE",
    Status.UNPROVEN: "UNPROVEN",
}


def render_html(summary: Summary) -> str:
    """The whole report; write it as UTF-8."""
    environment = Environment(
        loader=PackageLoader("edgemill", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["zip"] = zip
    margin = summary.budget.max_accuracy_drop

    def pareto(target: TargetResult) -> Markup:
        return Markup(charts.pareto_svg(target, summary.task, margin))

    def interval(variant: VariantResult) -> Markup:
        return Markup(charts.interval_svg(variant.drop_check, summary.task) if variant.drop_check else "")

    def sustained(target: TargetResult) -> Markup:
        found = target.sustained
        if found is None:
            return Markup()
        return Markup(sustained_svg(found.columns, found.model_dump()))

    return environment.get_template("report.html.j2").render(
        summary=summary,
        task=summary.task,
        css=Markup((resources.files("edgemill.report") / "report.css").read_text(encoding="utf-8")),
        figures=figures,
        words=words,
        pareto=pareto,
        sustained=sustained,
        matrix=Markup(matrix_svg(summary) if len(summary.targets) >= FEWEST else ""),
        interval=interval,
        search_picture=lambda: Markup(search_svg(summary.search) if summary.search else ""),
        status_word=lambda status: _STATUS_WORDS[status],
    )
