"""The matrix of targets, and targets that could not be tried or judged."""

import xml.etree.ElementTree as ET

import pytest

from edgemill.evidence import Arithmetic, DeviceFigures
from edgemill.report.html import render_html
from edgemill.report.markdown import render_markdown
from edgemill.report.matrix import matrix_svg
from edgemill.summary import Profile, Status, TargetResult, VariantResult

NPU = DeviceFigures(
    source="simulated:vela", latency_ms=0.1377, cycles=68_846, ram_bytes=20_173, flash_bytes=25_805, npu_share=1.0
)
LACK = "toolchain iree is not installed (720 MB): edgemill targets install iree"
UNRUN = "TensorRT does not run here"


@pytest.fixture
def wide(summary):
    """The summary with an NPU, a target that was skipped and one that nothing here can run."""
    profile = Profile(
        size_bytes=31_520, compressed_bytes=21_000, source=NPU.source, latency_p50_ms=NPU.latency_ms, device=NPU
    )
    chosen = summary.targets[0].selected_variant.model_copy(
        update={
            "target": "ethos-u55-128",
            "profile": profile,
            "arithmetic": Arithmetic(source="simulated:tflite-micro"),
        }
    )
    converted = VariantResult(target="jetson", candidate="int8", scheme="int8_static", status=Status.UNPROVEN)
    more = (
        TargetResult(target="ethos-u55-128", source=NPU.source, variants=(chosen,)),
        TargetResult(target="riscv64-iree", skipped=LACK),
        TargetResult(target="jetson", unproven=UNRUN, variants=(converted,)),
    )
    return summary.model_copy(update={"targets": (*summary.targets, *more)})


def test_every_target_has_a_row_with_its_outcome(wide):
    texts = [
        "".join(item.itertext()) for item in ET.fromstring(matrix_svg(wide)).iter("{http://www.w3.org/2000/svg}text")
    ]
    for target in wide.targets:
        assert target.target in texts
    assert {"SKIPPED", "UNPROVEN", "PASS"} <= set(texts)
    assert LACK in texts
    assert {"68,846", "138 µs", "20.2 kB", "25.8 kB", "simulated:tflite-micro; simulated:vela"} <= set(texts)


def test_times_that_say_nothing_of_the_target_are_left_out(summary):
    first = summary.targets[0]
    chosen = first.selected_variant
    taken = chosen.profile.model_copy(update={"source": "measured:native", "latency_p50_ms": 0.1234})

    def texts(profile):
        alone = first.model_copy(update={"variants": (chosen.model_copy(update={"profile": profile}),)})
        return "".join(ET.fromstring(matrix_svg(summary.model_copy(update={"targets": (alone,)}))).itertext())

    assert "123 µs" in texts(taken)
    assert "123 µs" not in texts(taken.model_copy(update={"source": "unlike:x86_64-host"}))


def test_bars_grow_with_the_figure(wide):
    bars = [
        float(item.get("width")) for item in ET.fromstring(matrix_svg(wide)).iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert len(bars) > 4
    assert min(bars) > 0


def test_what_was_not_tried_is_named_everywhere(wide):
    for text in (render_html(wide), render_markdown(wide)):
        assert "SKIPPED" in text
        assert "UNPROVEN" in text
        assert "edgemill targets install iree" in text
        assert UNRUN in text


def test_the_matrix_stands_in_the_report_of_many_targets_only(wide, summary):
    assert 'class="matrix"' in render_html(wide)
    assert 'class="matrix"' not in render_html(summary.model_copy(update={"targets": summary.targets[:1]}))


def test_targets_that_could_not_be_tried_do_not_decide_the_exit_status(wide):
    passing = [target for target in wide.targets if target.selected is not None or not target.counts]
    assert wide.model_copy(update={"targets": tuple(passing)}).exit_code == 0
    assert wide.model_copy(update={"targets": wide.targets[-2:]}).exit_code == 3


def test_scores_of_the_validation_split_do_not_stand_among_those_of_the_test_split(wide):
    target = wide.targets[0]
    ungated = [variant.model_copy(update={"accuracy": None, "status": Status.DROPPED}) for variant in target.variants]
    assert any(variant.validation_score is not None for variant in ungated)
    alone = wide.model_copy(update={"targets": (target.model_copy(update={"variants": tuple(ungated)}),)})
    assert "%" not in "".join(ET.fromstring(matrix_svg(alone)).itertext())
