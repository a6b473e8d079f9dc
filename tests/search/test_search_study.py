import math
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgemill.errors import InvariantError, StoreError
from edgemill.recipe import Goal
from edgemill.search.knobs import Knobs, name_of
from edgemill.search.propose import Sampler
from edgemill.search.record import SearchRecord, TrialState
from edgemill.search.storage import DATABASE
from edgemill.search.study import Outcome, SearchStudy, Subject
from tests.support.search_objective import CHECKPOINT, outcome, plan, run

SUBJECT = Subject(CHECKPOINT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


class TestAsk:
    def test_begins_with_the_start_list(self, folder: Path) -> None:
        search = plan(10)
        assert run(SearchStudy(folder, search, SUBJECT))[: len(search.start)] == [name_of(k) for k in search.start]

    @pytest.mark.parametrize("sampler", Sampler)
    def test_never_asks_the_same_twice_and_ends_when_all_was_tried(self, folder: Path, sampler: Sampler) -> None:
        search = plan(1000, width=(0.25, 0.5), clusters=(0, 16))
        study = SearchStudy(folder, search, SUBJECT, sampler=sampler)
        names = run(study)
        assert sorted(names) == sorted(map(name_of, search.candidates))
        assert study.ask() is None
        assert "trials" in study.stopped_because

    def test_stops_at_the_number_of_trials(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(5), SUBJECT)
        assert len(run(study)) == 5
        assert study.stopped_because == "all 5 trials of the plan are done"

    def test_stops_when_the_time_is_up(self, folder: Path) -> None:
        search = plan()
        object.__setattr__(search, "time_budget_s", 0.0)
        study = SearchStudy(folder, search, SUBJECT)
        assert study.ask() is None
        assert "time budget" in study.stopped_because

    @pytest.mark.parametrize("sampler", Sampler)
    def test_the_same_history_gives_the_same_question(self, tmp_path: Path, sampler: Sampler) -> None:
        first = run(SearchStudy(tmp_path / "a", plan(12), SUBJECT, seed=5, sampler=sampler))
        second = []
        for _ in range(12):  # a new process each time
            study = SearchStudy(tmp_path / "b", plan(12), SUBJECT, seed=5, sampler=sampler)
            second += run(study, most=1)
            study.close()
        assert second == first

    def test_trials_that_run_beside_each_other_differ(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        asked = [study.ask() for _ in range(8)]
        names = {trial.name for trial in asked if trial is not None}
        assert len(names) == 8

    def test_two_processes_on_one_study_never_try_the_same(self, folder: Path) -> None:
        studies = [SearchStudy(folder, plan(16), SUBJECT) for _ in range(2)]
        names: list[str] = []
        threads = [threading.Thread(target=lambda study=study: names.extend(run(study))) for study in studies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(names) == len(set(names)) == 16

    def test_asking_and_telling_may_happen_in_different_threads(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(4), SUBJECT)
        while (trial := study.ask()) is not None:
            teller = threading.Thread(target=study.tell, args=(trial, outcome(trial.knobs)))
            teller.start()
            teller.join()
        assert {trial.state for trial in study.history} <= {TrialState.COMPLETE, TrialState.INFEASIBLE}
        assert len(study.history) == 4

    def test_the_sampler_learns_from_what_it_is_told(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(20), SUBJECT, seed=1)
        run(study)
        ended = study.record()
        best = plan(1000)
        everything = SearchStudy(folder / "all", best, SUBJECT)
        run(everything)
        assert ended.hypervolume[-1] >= 0.97 * everything.record().hypervolume[-1]


class TestTell:
    def test_what_is_over_the_budget_is_infeasible_and_never_on_the_front(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        run(study)
        over = {trial.name for trial in study.history if trial.state is TrialState.INFEASIBLE}
        assert over
        assert over == {trial.name for trial in study.history if trial.violation is not None and trial.violation > 0}
        assert not over & {trial.name for trial in study.front}
        assert study.front

    def test_a_chain_over_the_budget_need_not_be_measured(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        trial = study.ask()
        assert trial is not None
        study.tell(trial, Outcome({}, 0.01, 0.9))
        assert study.history[0].state is TrialState.INFEASIBLE
        assert study.history[0].values == {}
        run(study)
        assert len(study.record().trials) == 20

    def test_what_does_not_fit_on_the_target_that_tells_time_is_over_the_budget_and_says_why(
        self, folder: Path
    ) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        trial = study.ask()
        assert trial is not None
        study.tell(trial, Outcome({Goal.COMPRESSED_BYTES: 0.1}, 0.5, 0.9, cause="gateway: flash"))
        (record,) = study.history
        assert record.state is TrialState.INFEASIBLE
        assert (record.values, record.cause) == ({}, "gateway: flash")
        run(study)
        assert len(study.record().trials) == 20

    @pytest.mark.parametrize(
        "found",
        [
            Outcome({Goal.LATENCY: math.nan, Goal.COMPRESSED_BYTES: 0.1}, -1.0),
            Outcome({Goal.LATENCY: 0.1}, -1.0),
            Outcome({Goal.LATENCY: 0.0, Goal.COMPRESSED_BYTES: 0.1}, -1.0),
            Outcome({Goal.LATENCY: 0.1, Goal.COMPRESSED_BYTES: 0.1}, math.nan),
        ],
    )
    def test_figures_that_are_none_make_a_failed_trial_with_its_cause(self, folder: Path, found: Outcome) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        trial = study.ask()
        assert trial is not None
        study.tell(trial, found)
        assert study.history[0].state is TrialState.FAILED
        assert " is " in (study.history[0].cause or "")

    def test_a_failed_trial_keeps_its_cause_and_the_study_goes_on(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(6), SUBJECT)
        trial = study.ask()
        assert trial is not None
        study.fail(trial, "the loss is NaN in epoch 2")
        names = run(study)
        assert trial.name not in names
        assert len(names) == 5
        assert study.history[0].cause == "the loss is NaN in epoch 2"

    def test_a_trial_cannot_be_told_twice(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        trial = study.ask()
        assert trial is not None
        study.tell(trial, outcome(trial.knobs))
        with pytest.raises(InvariantError, match="not running"):
            study.fail(trial, "late")


def short_plan(trials: int = 20):
    return replace(plan(trials), short=0.25)


class TestShortTraining:
    def test_without_short_trainings_no_student_is_judged(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        assert not any(study.unjudged(_ask(study)) for _ in range(3))

    def test_only_a_new_student_is_judged(self, folder: Path) -> None:
        study = SearchStudy(folder, replace(plan(width=(0.5,)), short=0.25), SUBJECT)
        first, second = _ask(study), _ask(study)
        assert first.knobs.student == second.knobs.student
        assert study.unjudged(first)
        study.note_short(first, (0.1, 0.1), 0.9)
        assert not study.unjudged(second)

    def test_the_checkpoint_itself_has_nothing_to_prove(self, folder: Path) -> None:
        study = SearchStudy(folder, short_plan(), SUBJECT)
        trial = _ask(study)
        assert not trial.knobs.trained
        assert not study.unjudged(trial)

    def test_no_other_chain_of_a_stopped_student_is_proposed(self, folder: Path) -> None:
        study = SearchStudy(folder, short_plan(1000), SUBJECT)
        stopped = None
        students = []
        while (trial := study.ask()) is not None:
            if stopped is None and study.unjudged(trial):
                found = outcome(trial.knobs)
                study.note_short(trial, (0.1, 0.2), 0.5)
                study.stop(trial, "hopeless", found)
                stopped = trial.knobs.student
                continue
            students.append(trial.knobs.student)
            study.tell(trial, outcome(trial.knobs))
        assert stopped is not None
        assert stopped not in students
        assert "student that was stopped" in study.stopped_because
        record = next(trial for trial in study.history if trial.state is TrialState.PRUNED)
        assert record.cause == "hopeless"

    def test_what_was_judged_is_known_with_its_full_score(self, folder: Path) -> None:
        study = SearchStudy(folder, short_plan(), SUBJECT)
        study.tell(next_trial := _ask(study), outcome(next_trial.knobs))
        trial = _ask(study)
        study.note_short(trial, (0.1, 0.2), 0.9)
        assert study.shorts()[0].full_score is None
        found = outcome(trial.knobs)
        study.tell(trial, found)
        (short,) = study.shorts()
        assert (short.name, short.values, short.score, short.full_score) == (trial.name, (0.1, 0.2), 0.9, found.score)


class TestResume:
    def test_goes_on_where_it_was(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT, seed=2)
        begun = run(study, most=7)
        study.close()
        again = SearchStudy(folder, plan(), SUBJECT, seed=2)
        assert again.resumed
        assert not study.resumed
        assert not set(begun) & set(run(again))
        assert [trial.name for trial in again.history][:7] == begun

    def test_what_another_run_left_unfinished_is_tried_first(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        run(study, most=3)
        lost = _ask(study)
        study.close()
        again = SearchStudy(folder, plan(), SUBJECT)
        assert again.history[3].state is TrialState.FAILED
        assert again.history[3].cause == "the run was killed meanwhile"
        trial = _ask(again)
        assert (trial.name, trial.origin) == (lost.name, "interrupted")

    def test_what_is_running_elsewhere_is_left_alone(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        running = _ask(study)
        other = SearchStudy(folder, plan(), SUBJECT)
        assert _ask(other).name != running.name
        assert other.history[running.number].state is TrialState.RUNNING
        study.tell(running, outcome(running.knobs))

    def test_a_chain_that_kills_every_run_is_given_up(self, folder: Path) -> None:
        names = []
        for _ in range(5):
            study = SearchStudy(folder, plan(), SUBJECT)
            names.append(_ask(study).name)
            study.close()
        assert names[0] == names[1] == names[2] != names[3]

    def test_a_failure_that_was_not_the_chains_fault_is_tried_again_by_the_next_run_only(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(6), SUBJECT)
        trial = _ask(study)
        study.fail(trial, "the disk is full", again=True)
        assert trial.name not in run(study)
        study.close()
        assert run(SearchStudy(folder, plan(6), SUBJECT))[0] == trial.name

    def test_another_subject_seed_or_space_is_another_study(self, folder: Path) -> None:
        names = {
            SearchStudy(folder, plan(), SUBJECT).name,
            SearchStudy(folder, plan(), Subject(CHECKPOINT, {"data": "d"})).name,
            SearchStudy(folder, plan(), SUBJECT, seed=1).name,
            SearchStudy(folder, plan(width=(0.5,)), SUBJECT).name,
        }
        assert len(names) == 4

    def test_more_trials_or_time_continue_the_same_study(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(4), SUBJECT)
        run(study)
        study.close()
        longer = SearchStudy(folder, plan(9), SUBJECT)
        assert longer.name == study.name
        assert len(run(longer)) == 5


class TestWarmStart:
    def test_the_best_of_an_earlier_study_is_tried_first_and_judged_anew(self, folder: Path) -> None:
        earlier = SearchStudy(folder, plan(), SUBJECT, seed=1)
        run(earlier)
        best = [trial.name for trial in earlier.front]
        study = SearchStudy(folder, plan(), SUBJECT, seed=2)
        record = study.record()
        assert record.warm_started
        assert set(record.warm_started) <= set(best)
        assert len(record.warm_started) <= 4
        assert study.history == ()
        trial = _ask(study)
        assert (trial.name, trial.origin) == (record.warm_started[0], "warm start")

    def test_another_checkpoint_gives_nothing(self, folder: Path) -> None:
        run(SearchStudy(folder, plan(), SUBJECT))
        assert SearchStudy(folder, plan(), Subject("d" * 64)).record().warm_started == ()

    def test_what_is_not_in_the_space_is_taken_over_as_its_nearest(self, folder: Path) -> None:
        run(SearchStudy(folder, plan(), SUBJECT))
        study = SearchStudy(folder, plan(width=(0.4, 0.9)), SUBJECT)
        trial = _ask(study)
        assert trial.origin == "warm start"
        assert trial.knobs in study.plan.candidates


class TestRecord:
    def test_says_all_and_survives_json(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        run(study)
        record = study.record()
        assert SearchRecord.model_validate_json(record.model_dump_json()) == record
        assert len(record.hypervolume) == len(record.trials) == 20
        assert list(record.hypervolume) == sorted(record.hypervolume)
        assert record.hypervolume[-1] > 0
        assert set(record.front) <= {trial.name for trial in record.trials}
        assert {item.of for item in record.importance} == {"latency", "compressed_bytes", "accuracy_drop"}

    def test_a_study_without_trials_has_a_record_too(self, folder: Path) -> None:
        record = SearchStudy(folder, plan(), SUBJECT).record()
        assert (record.trials, record.front, record.hypervolume) == ((), (), ())
        assert all("too few trials" in (item.reason or "") for item in record.importance)


class TestDamage:
    def test_a_damaged_file_is_an_error_with_a_remedy(self, folder: Path) -> None:
        folder.mkdir()
        (folder / DATABASE).write_bytes(b"not a database" * 1000)
        with pytest.raises(StoreError, match="cannot be used") as caught:
            SearchStudy(folder, plan(), SUBJECT)
        assert "starts anew" in str(caught.value)

    def test_a_database_that_goes_away_is_an_error_too(self, folder: Path) -> None:
        study = SearchStudy(folder, plan(), SUBJECT)
        trial = _ask(study)
        with sqlite3.connect(folder / DATABASE) as database:
            database.execute("DROP TABLE trial_user_attributes")
        with pytest.raises(StoreError, match="cannot be used"):
            study.tell(trial, outcome(trial.knobs))


def _ask(study: SearchStudy):
    trial = study.ask()
    assert trial is not None
    return trial


def test_the_chain_of_a_trial_is_read_back_exactly(tmp_path: Path) -> None:
    study = SearchStudy(tmp_path, plan(), SUBJECT)
    trial = _ask(study)
    assert study.history[0].knobs.knobs == trial.knobs
    assert isinstance(trial.knobs, Knobs)
