"""Boards in a whole run of the digits example: one measures, one is gone, and the run says what is missing."""

import platform

import pytest

from edgemill.targets import load_target
from edgemill.targets.provenance import difference
from tests.support.runs import optimize

PLAIN = (
    "stages.distill=null",
    "stages.prune=null",
    "stages.quantize.schemes=[int8_static]",
    "benchmark.rounds=6",
    "benchmark.time_budget_s=2",
    "budget.max_accuracy_drop=0.3",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_board_that_is_gone_leaves_the_others_figures(lab, tmp_path):
    if why := difference(load_target("x86-64-vnni"), platform.machine()):
        pytest.skip(f"x86-64-vnni: {why}")
    lab.board("here", target="x86-64-vnni")
    _, server = lab.board("gone", target="x86-64-litert")
    server.stop()
    targets = "targets=[x86-64-vnni,x86-64-litert]"
    finished = optimize(tmp_path / "home", *PLAIN, targets, EDGEMILL_BOARDS=str(lab.inventory))
    assert finished.code == 0, finished.log
    first, second = finished.summary["targets"]
    assert first["source"] == "measured:board:here"
    gated = first["variants"][0]
    assert gated["profile"]["source"] == "measured:board:here"
    assert gated["arithmetic"] == gated["arithmetic"] | {"source": "measured:board:here", "note": ""}
    asked = [name for name in finished.steps_run if name == "benchmark.board"]
    assert len(asked) == 2  # its figures, and the answers of the test split for the gate
    assert second["source"] == "measured:native"
    (missing,) = second["variants"][0]["missing"]
    assert "board gone" in missing
    assert second["variants"][0]["arithmetic"]["source"] == "measured:native"
    assert "gone" in (tmp_path / "home" / "runs" / "digits" / "report.html").read_text()
    again = optimize(tmp_path / "home", *PLAIN, targets, EDGEMILL_BOARDS=str(lab.inventory))
    assert [name for name in again.steps_run if name == "benchmark.board"] == []
    assert again.summary["targets"][0]["source"] == "measured:board:here"
