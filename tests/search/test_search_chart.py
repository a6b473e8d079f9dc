from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgemill.report.search_chart import search_svg
from edgemill.search.record import SearchRecord, TrialState
from edgemill.search.study import SearchStudy, Subject
from tests.support.search_objective import CHECKPOINT, outcome, plan, run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    study = SearchStudy(tmp_path_factory.mktemp("search"), plan(20), Subject(CHECKPOINT), seed=1)
    run(study, most=6)
    trial = study.ask()
    assert trial is not None
    study.stop(trial, "hopeless", outcome(trial.knobs))
    run(study)
    return study.record()


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_measured_trial_is_a_dot_and_the_front_is_named(record: SearchRecord) -> None:
    root = ElementTree.fromstring(search_svg(record))
    tips = [circle.findtext(f"{SVG}title") for circle in root.iter(f"{SVG}circle")]
    named = [tip.partition(":")[0] for tip in tips if tip]
    assert sorted(named) == sorted(trial.name for trial in record.trials)
    assert set(record.front) <= set(texts(search_svg(record)))


def test_bars_show_the_shares(record: SearchRecord) -> None:
    shown = texts(search_svg(record))
    for item in record.importance:
        for share in item.shares.values():
            assert f"{share:.0%}" in shown


def test_no_text_leaves_the_picture(record: SearchRecord) -> None:
    root = ElementTree.fromstring(search_svg(record))
    for element in root.iter(f"{SVG}text"):
        if "x" not in element.attrib:
            continue
        x, wide = float(element.attrib["x"]), 6 * len(element.text or "")
        left = x - wide * {"start": 0, "middle": 0.5, "end": 1}[element.attrib.get("text-anchor", "start")]
        assert left >= -12, element.text
        assert left + wide <= 1160 + 12, element.text


def test_nothing_measured_gives_no_picture(record: SearchRecord) -> None:
    failed = [trial.model_copy(update={"values": {}, "state": TrialState.FAILED}) for trial in record.trials]
    assert search_svg(record.model_copy(update={"trials": tuple(failed)})) == ""


def test_one_goal_has_a_picture_too(record: SearchRecord) -> None:
    goal = record.goals[0]
    trials = tuple(trial.model_copy(update={"values": {goal: trial.values[goal]}}) for trial in record.trials)
    svg = search_svg(record.model_copy(update={"goals": (goal,), "trials": trials}), standalone=True)
    assert "trials" in texts(svg)


def test_a_study_without_trials_has_none(tmp_path: Path) -> None:
    assert search_svg(SearchStudy(tmp_path, plan(), Subject(CHECKPOINT)).record()) == ""
