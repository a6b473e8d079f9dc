"""Ranking targets and variants by what a run found."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgemill.advise import By, Evidence, Option, Wishes, advise
from edgemill.cli import main
from edgemill.evidence import Arithmetic, DeviceFigures
from edgemill.recipe import Budget, Task
from edgemill.report.advice_chart import advice_svg
from edgemill.summary import CheckpointFacts, DataFacts, Profile, Status, Summary, TargetResult, VariantResult
from edgemill.targets import load_target
from edgemill.targets.spec import Price

NOW = datetime(2026, 11, 23, tzinfo=UTC)
PRICE = Price(usd=60, source="a shop that was looked at", date="2026-11")


def variant(target, name, source, p95, accuracy, *, status=Status.SELECTED, answers="measured:native", **profile):
    return VariantResult(
        target=target,
        candidate=name,
        scheme="int8_static",
        status=status,
        reason="" if status is Status.SELECTED else "lost too much",
        accuracy=accuracy,
        arithmetic=Arithmetic(source=answers),
        profile=Profile(size_bytes=100, compressed_bytes=80, source=source, latency_p95_ms=p95, **profile),
    )


def summary_of(*targets: TargetResult) -> Summary:
    return Summary(
        name="m",
        task=Task.CLASSIFICATION,
        recipe_digest="0" * 64,
        budget=Budget(),
        checkpoint=CheckpointFacts(format="keras3", digest="1" * 64),
        data=DataFacts(source="idx", digest="2" * 64, splits={"test": 5}),
        targets=targets,
        started=NOW,
        finished=NOW,
        command="edgemill optimize",
    )


NPU = DeviceFigures(source="simulated:vela", latency_ms=0.2, ram_bytes=20_000)
GATEWAY = TargetResult(
    target="x86-64-vnni",
    variants=(
        variant("x86-64-vnni", "small", "measured:native", 0.02, 0.92, peak_rss_bytes=9_000_000),
        variant("x86-64-vnni", "broken", "measured:native", 0.01, 0.5, status=Status.FAILED),
    ),
)
BOARD = TargetResult(
    target="raspberry-pi-5",
    variants=(variant("raspberry-pi-5", "small", "proxy:x86_64-host", 0.05, 0.93, energy_estimate_mj=0.4),),
)
MICRO = TargetResult(
    target="ethos",
    variants=(variant("ethos", "small", "simulated:vela", 0.2, 0.91, answers="simulated:tflite-micro", device=NPU),),
)
BARE = TargetResult(target="bare", variants=(variant("bare", "small", "untimed", None, 0.91),))
ABSENT = TargetResult(target="iree", skipped="toolchain iree is not installed: edgemill targets install iree")
SUMMARY = summary_of(GATEWAY, BOARD, MICRO, BARE, ABSENT)
TARGETS = {"raspberry-pi-5": load_target("raspberry-pi-5").model_copy(update={"price": PRICE})}


def choices(by=By.LATENCY, **wishes) -> list[str]:
    return [option.target for option in advise(SUMMARY, TARGETS, Wishes(**wishes), by).choices]


def reasons(target: str, candidate: str = "small", **wishes) -> str:
    options = advise(SUMMARY, TARGETS, Wishes(**wishes), By.LATENCY).options
    return "; ".join(next(o for o in options if (o.target, o.candidate) == (target, candidate)).excluded)


def test_ranked_by_what_is_asked_and_unknown_last():
    assert choices(By.LATENCY) == ["x86-64-vnni", "raspberry-pi-5", "ethos", "bare"]
    assert choices(By.ACCURACY)[0] == "raspberry-pi-5"
    assert choices(By.COST)[0] == "raspberry-pi-5"


def test_every_exclusion_is_explained():
    assert "lost too much" in reasons("x86-64-vnni", "broken")
    assert "nobody has the figure" in reasons("bare", max_latency_ms=1)
    assert "0.2 ms (simulated), at most 0.1 ms was asked" in reasons("ethos", max_latency_ms=0.1)
    assert "at least 0.92 was asked" in reasons("ethos", min_accuracy=0.92)
    assert "nobody has the figure" in reasons("x86-64-vnni", max_cost=100)
    assert reasons("raspberry-pi-5", max_cost=100) == ""
    assert "60 USD (listed), at most 50 USD" in reasons("raspberry-pi-5", max_cost=50)
    assert "edgemill targets install iree" in reasons("iree", "")


def test_the_limits_that_stand_in_the_way_are_named():
    wishes = {"max_cost": 50, "min_accuracy": 0.92, "max_latency_ms": 10}
    advice = advise(SUMMARY, TARGETS, Wishes(**wishes), By.LATENCY)
    assert not advice.choices
    assert set(advice.without) == set(wishes)
    for limit, more in advice.without.items():
        left = choices(**{name: value for name, value in wishes.items() if name != limit})
        assert more == len(left)
    assert advice.without["max_cost"] > 0
    assert advice.without["min_accuracy"] == 0


def test_weak_evidence_is_refused_where_strong_is_asked():
    assert "only estimated" in reasons("raspberry-pi-5", max_latency_ms=1, evidence=Evidence.MEASURED)
    assert "only simulated" in reasons("ethos", max_latency_ms=1, evidence=Evidence.MEASURED)
    assert choices(max_latency_ms=1, evidence=Evidence.MEASURED) == ["x86-64-vnni"]
    assert choices(max_latency_ms=1, evidence=Evidence.SIMULATED) == ["x86-64-vnni", "ethos"]


def test_memory_is_that_of_the_device():
    assert choices(max_ram_bytes=20_000) == ["ethos"]


@given(
    st.builds(
        Wishes,
        max_latency_ms=st.none() | st.floats(0.001, 10),
        max_energy_mj=st.none() | st.floats(0.001, 10),
        min_accuracy=st.none() | st.floats(0, 1),
        max_cost=st.none() | st.floats(1, 1000),
        evidence=st.sampled_from([Evidence.MEASURED, Evidence.SIMULATED, Evidence.ESTIMATED]),
    ),
    st.sampled_from(By),
)
def test_nothing_is_lost_and_tighter_limits_never_add_choices(wishes, by):
    loose, tight = (advise(SUMMARY, TARGETS, w, by) for w in (Wishes(), wishes))
    pairs = [sorted((o.target, o.candidate) for o in advice.options) for advice in (loose, tight)]
    assert pairs[0] == pairs[1]
    assert {o.target for o in tight.choices} <= {o.target for o in loose.choices}
    keys = [o.figure(by).value for o in tight.choices if o.figure(by).known]
    assert keys == sorted(keys, reverse=by is By.ACCURACY)
    if tight.choices:
        assert any(option.best for option in tight.choices)


def test_picture_is_valid_and_names_every_option():
    advice = advise(SUMMARY, TARGETS, Wishes(max_latency_ms=0.1), By.LATENCY)
    text = "".join(ET.fromstring(advice_svg(advice)).itertext())
    assert all(option.target in text for option in advice.options)
    assert "nobody has the figure" in text


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: m\ncheckpoint: {path: m.keras}\ntargets: [x86-64-vnni, raspberry-pi-5]\n"
        "data: {source: 'sklearn:digits', split: {validation: 9, calibration: 9}}\n"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(SUMMARY.model_dump_json())
    return path


def invoke(*words):
    return CliRunner().invoke(main, ["advise", *map(str, words)])


def test_command_ranks_draws_and_tells_by_its_exit_status(recipe, tmp_path):
    told = invoke(recipe, "--from", tmp_path / "run", "--max-latency-ms", "0.03", "--picture", tmp_path / "a.svg")
    assert told.exit_code == 0
    assert "x86-64-vnni" in told.output
    assert "excluded" in told.output
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert invoke(recipe, "--from", tmp_path / "run", "--max-latency-ms", "0.001").exit_code == 3


def test_command_says_what_is_wrong(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEMILL_HOME", str(tmp_path / "home"))
    none = invoke(recipe)
    assert none.exit_code == 2
    assert "edgemill optimize" in none.output
    wrong = invoke(recipe, "--from", tmp_path / "run", "--max-latency-ms", "-1")
    assert wrong.exit_code == 2
    assert "--max-latency-ms" in wrong.output
    (tmp_path / "run" / "summary.json").write_text("{")
    assert invoke(recipe, "--from", tmp_path / "run").exit_code == 2


def test_options_survive_json():
    for option in advise(SUMMARY, TARGETS, Wishes(), By.SIZE).options:
        assert Option.model_validate_json(option.model_dump_json()) == option
