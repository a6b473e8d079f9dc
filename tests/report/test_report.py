"""The report in its three forms."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edgemill.recipe import Task
from edgemill.report import figures
from edgemill.report.charts import interval_svg, linear_ticks, log_ticks, pareto_svg
from edgemill.report.html import render_html
from edgemill.report.markdown import render_markdown
from edgemill.report.terminal import render_terminal
from edgemill.summary import Status, Summary
from edgemill.validate.verdict import Decision

GOLDEN = Path(__file__).parent / "golden"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Outline of a page: tags with class, id and depth, checked to be balanced; texts; outside addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.outline: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.rows: dict[str, int] = {}
        self._in_svg = 0
        self.feed(text)
        self.close()
        assert not self.stack, f"open at the end: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [value for name, value in attrs if name in ("href", "src", "xlink:href", "action") and value]
        if not self._in_svg and tag not in ("br",):
            mark = "".join(f"{sign}{values[name]}" for name, sign in (("id", "#"), ("class", ".")) if values.get(name))
            self.outline.append("  " * len(self.stack) + tag + mark.replace(" ", "."))
        if tag not in VOID:
            self.stack.append(tag)
            self._in_svg += tag == "svg"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1:] == [tag], f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()
        self._in_svg -= tag == "svg"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def check_golden(name: str, text: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / name
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{name} changed; run with --update-golden if that is right"


def test_markdown_is_as_recorded(summary, request):
    check_golden("report.md", render_markdown(summary), request)


def test_html_structure_is_as_recorded(summary, request):
    check_golden("report.outline.txt", "\n".join(Page(render_html(summary)).outline) + "\n", request)


def test_html_needs_nothing_from_outside(summary):
    text = render_html(summary)
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    # Only the link given in the summary, shown as text, and the SVG name space.
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {
        "http://www.w3.org/2000/svg",
        summary.links["MLflow run"],
    }


def test_html_says_everything(summary):
    words = " ".join(Page(render_html(summary)).texts)
    for target in summary.targets:
        assert target.target in words
        assert target.source in words
        for variant in target.variants:
            assert variant.candidate in words
            assert variant.reason in words
    for digest in (summary.checkpoint.digest, summary.data.digest, summary.recipe_digest, summary.targets[0].selected):
        assert digest in words
    assert summary.command in words
    assert "92.66 %" in words
    assert "≤ +0.41 pt" in words
    assert "0.103" in words
    assert all(value in words for value in summary.environment.values())
    assert "convolutions quantized at run time" in words
    assert "reduce_range: equal, kept" in words
    assert "19.8 to 21.1" in words
    assert "> 20 dB" in words
    assert "throttling from 74 s on" in words


def test_hostile_names_stay_text(summary):
    evil = "<script>alert(1)</script>&\"'"
    target = summary.targets[0]
    variants = tuple(v.model_copy(update={"candidate": evil + v.candidate, "reason": evil}) for v in target.variants)
    hostile = summary.model_copy(
        update={
            "name": evil,
            "command": evil,
            "environment": {evil: evil},
            "targets": (target.model_copy(update={"title": evil, "target": evil, "variants": variants}),),
        }
    )
    text = render_html(hostile)
    assert "<script" not in text
    assert evil in " ".join(Page(text).texts)
    markdown = render_markdown(hostile)
    before_command, command = markdown.split("Do it again:")
    assert "<script" not in before_command.replace("\\<script", "")
    assert command == f"\n\n```sh\n{evil}\n```\n"
    fenced = render_markdown(hostile.model_copy(update={"command": "a ``` b"}))
    assert fenced.endswith("````sh\na ``` b\n````\n")


@pytest.mark.parametrize("index", [0, 1, 2])
def test_pareto_picture_is_valid_and_draws_every_measured_variant(summary, index):
    target = summary.targets[index]
    root = ElementTree.fromstring(pareto_svg(target, Task.CLASSIFICATION, 0.005, standalone=True))
    tips = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    for variant in target.variants:
        drawn = sum(f" {variant.candidate}:" in tip for tip in tips)
        assert drawn == (2 if variant.profile else 0)
    assert sum(tip.startswith("baseline") for tip in tips) == 2
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for dot in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 < float(dot.attrib["cx"]) < width
        assert 0 < float(dot.attrib["cy"]) < height


def test_failed_is_hollow_and_selected_has_a_ring(summary):
    text = pareto_svg(summary.targets[0], Task.CLASSIFICATION, 0.005)
    assert text.count('fill="var(--card)" stroke="var(--failed)"') == 2
    assert text.count('fill="none" stroke="var(--selected)"') == 2


def test_a_picture_without_times_begins_with_the_sizes(summary: Summary) -> None:
    target = summary.targets[0]
    variants = tuple(
        item.model_copy(
            update={"profile": item.profile.model_copy(update={"latency_ratio": None, "latency_p50_ms": None})}
        )
        for item in target.variants
        if item.profile is not None
    )
    untimed = target.model_copy(update={"variants": variants})
    both, alone = (pareto_svg(item, Task.CLASSIFICATION, 0.005) for item in (target, untimed))
    assert "median time" not in alone
    assert "baseline less the margin" in alone
    lefts = [min(float(x) for x in re.findall(r'<line x1="([0-9.]+)"', text)) for text in (both, alone)]
    assert lefts[0] == lefts[1]


def test_picture_without_anything_to_draw(summary):
    target = summary.targets[0]
    assert pareto_svg(target.model_copy(update={"baseline": None}), Task.CLASSIFICATION, 0.005) == ""
    assert pareto_svg(target.model_copy(update={"variants": ()}), Task.CLASSIFICATION, 0.005) == ""


def test_interval_beyond_the_axis_ends_in_an_arrow(summary):
    by_status = {v.status: v.verdict for v in summary.targets[0].variants if v.verdict}
    assert "<circle" in interval_svg(by_status[Status.SELECTED], Task.CLASSIFICATION)
    far = interval_svg(by_status[Status.FAILED], Task.CLASSIFICATION)
    assert "<circle" not in far
    assert "<path" in far


def shown(summary: Summary, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(render_terminal(summary))
    return stream.getvalue()


def test_terminal_has_every_variant_with_its_figures(summary):
    text = shown(summary, 200)
    for target in summary.targets:
        assert target.target in text
        for variant in target.variants:
            assert variant.candidate in text
            if variant.status in (Status.FAILED, Status.INCONCLUSIVE):
                assert variant.reason in text
    line = next(line for line in text.splitlines() if line.startswith("distill-int8_static"))
    assert line.split() == [
        "distill-int8_static",
        "selected",
        "92.66",
        "%",
        "≤",
        "+0.41",
        "pt",
        "21.5",
        "µs",
        "0.103",
        "167",
        "kB",
    ]


@pytest.mark.parametrize("width", [20, 60, 80])
def test_terminal_of_any_width(summary, width):
    assert all(len(line) <= width for line in shown(summary, width).splitlines())


@pytest.mark.parametrize("task", list(Task))
def test_every_task_and_missing_figures(summary, task):
    bare = summary.targets[0].model_copy(update={"baseline": None, "source": None, "failure": "onnxruntime is absent"})
    other = summary.model_copy(
        update={"task": task, "targets": (bare, summary.targets[2]), "links": {}, "environment": {}}
    )
    assert "onnxruntime is absent" in render_html(other)
    assert "onnxruntime is absent" in render_markdown(other)
    assert "onnxruntime is absent" in shown(other, 120)
    Page(render_html(other))


def test_waterfall(summary):
    rows = figures.waterfall(summary.targets[0])
    assert next(row.title for row in rows) == "checkpoint, fp32 on this target"
    assert rows[1].score_lost == pytest.approx(0.0010)
    assert rows[1].bytes_gained == 2_529_685 - 640_113
    assert rows[2].latency_ms is None
    assert rows[2].time_gained is None
    assert rows[3].time_gained == pytest.approx(0.0811 - 0.0215)
    assert rows[0].share == 1.0
    assert figures.waterfall(summary.targets[2]) == []


@pytest.mark.parametrize(
    ("source", "claimed"), [("measured:native", True), ("proxy:x", True), ("unlike:x", False), ("emulated:qemu", False)]
)
def test_speed_is_claimed_only_from_times_that_tell(summary, source, claimed):
    profile = summary.targets[0].selected_variant.profile.model_copy(update={"source": source})
    assert (figures.speedup(profile) is not None) == claimed
    assert bool(figures.source_note(source)) == (source != "measured:native")


def test_order_of_the_variants(summary):
    statuses = [v.status for v in figures.ordered(summary.targets[0])]
    assert statuses[:3] == [Status.SELECTED, Status.PASSED, Status.PASSED]
    assert statuses[-2:] == [Status.DROPPED, Status.DROPPED]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (62_443, "62.4 kB"),
        (717_560, "718 kB"),
        (999_700, "1 MB"),
        (2_729_050, "2.73 MB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_bytes(value, text):
    assert figures.bytes_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0215, "21.5 µs"), (0.2104, "210 µs"), (1.32, "1.32 ms"), (1234.5, "1,234 ms"), (None, "\N{EN DASH}")],
)
def test_times(value, text):
    assert figures.time_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (346.2, "5 min 46 s"), (59.99, "60.0 s"), (7260, "2 h 1 min")]
)
def test_durations(seconds, text):
    assert figures.duration_text(seconds) == text


@given(st.floats(1e-6, 1e9), st.floats(1.2, 1e4))
def test_ticks_lie_inside(low, factor):
    high = low * factor
    for ticks in (log_ticks(low, high), linear_ticks(low, high)):
        assert 2 <= len(ticks) <= 12
        assert all(low * 0.999999 <= tick <= high * 1.000001 for tick in ticks)
        assert ticks == sorted(ticks)


def test_summary_round_trip_and_exit_code(summary):
    again = Summary.model_validate_json(summary.model_dump_json())
    assert again == summary
    assert summary.exit_code == 3
    assert summary.model_copy(update={"targets": summary.targets[:2]}).exit_code == 0
    assert [t.verdict for t in summary.targets] == [Decision.PASS, Decision.PASS, Decision.FAIL]
    document = summary.model_dump(mode="json")
    metrics = document["targets"][0]["variants"][2]["metrics"]
    assert metrics["accuracy_drop"] == pytest.approx(0.0017)
    assert metrics["speedup"] == pytest.approx(1 / 0.103)
    assert set(metrics) >= {
        "accuracy", "accuracy_drop", "accuracy_drop_upper", "latency_p50_ms", "latency_p95_ms", "speedup", "size_bytes",
        "compressed_bytes", "peak_rss_bytes",
    }  # fmt: skip
    assert summary.wall_seconds == pytest.approx(346.2)
    assert summary.variant(summary.targets[0].selected).candidate == "distill-int8_static"


def test_two_defaults_are_refused(summary):
    target = summary.targets[0]
    chosen = target.selected_variant
    with pytest.raises(ValueError, match="more than one"):
        type(target).model_validate(target.model_dump() | {"variants": (chosen, chosen)})


def test_each_row_names_its_source_only_where_sources_differ(summary):
    target = summary.targets[0]
    own = f'<span class="tag">{target.source}</span>'
    plain = render_html(summary.model_copy(update={"targets": (target,)}))
    chosen = target.selected_variant
    other = chosen.model_copy(update={"profile": chosen.profile.model_copy(update={"source": "emulated:qemu"})})
    variants = tuple(other if variant is chosen else variant for variant in target.variants)
    mixed = render_html(summary.model_copy(update={"targets": (target.model_copy(update={"variants": variants}),)}))
    assert mixed.count(own) > plain.count(own)
    assert "emulated:qemu" in mixed
