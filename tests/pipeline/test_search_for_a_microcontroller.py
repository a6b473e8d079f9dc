"""A search for a device whose times nothing here takes, and on which not every chain fits."""

import pytest

from tests.support.ready import usable
from tests.support.runs import optimize

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TIGHT = """
extends: cortex-m4-bare-c
title: a sensor with little flash
limits: {{flash_bytes: {flash}}}
emulation: {{probe: 10}}
"""
SEARCH = (
    "stages.distill.epochs=16",
    "stages.quantize.schemes=[int8_static]",
    "budget.max_accuracy_drop=0.5",
    "search={preset: thorough, trials: 4, space: {width: [1, 0.75, 0.5], keep: [1], sparsity: [0], clusters: [0]}}",
)


def test_what_does_not_fit_is_over_the_budget_and_the_rest_is_ranked_by_multiplications(tmp_path):
    usable("cortex-m4-bare-c")
    own = tmp_path / "sensor.yaml"
    own.write_text(TIGHT.format(flash=40_000))
    finished = optimize(tmp_path / "home", *SEARCH, f"targets=[{own}]")
    assert finished.code == 0, finished.log
    search = finished.summary["search"]
    assert search["goals"] == ["macs", "compressed_bytes"]
    trials = {trial["knobs"]["width"]: trial for trial in search["trials"]}
    for width in (1, 0.75):  # the checkpoint itself, and a student that is dropped before its full training
        assert trials[width]["state"] == "infeasible"
        assert "flash" in trials[width]["cause"]
    assert finished.steps_run.count("distill.student") == 3
    assert trials[0.5]["state"] == "complete"
    assert 0 < trials[0.5]["values"]["macs"] < 0.6
    (target,) = finished.summary["targets"]
    assert target["verdict"] == "PASS"
