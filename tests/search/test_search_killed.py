import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgemill.search.record import TrialState
from edgemill.search.study import SearchStudy, Subject
from tests.support.search_objective import CHECKPOINT, plan, run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "support" / "search_objective.py"


def killed_in_trial(folder: Path, number: int) -> list[str]:
    """Names of the trials that a process began before it was killed in the middle of one."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    names = []
    with process:
        for line in process.stdout:
            names.append(line.split()[2])
            if int(line.split()[1]) == number:
                process.send_signal(signal.SIGKILL)
                break
    return names


@pytest.mark.parametrize("number", [0, 9])
def test_a_kill_loses_the_running_trial_at_most(tmp_path: Path, number: int) -> None:
    names = killed_in_trial(tmp_path / "killed", number)
    study = SearchStudy(tmp_path / "killed", plan(), Subject(CHECKPOINT), seed=3)
    assert study.resumed
    states = [trial.state for trial in study.history]
    assert states.count(TrialState.FAILED) == 1
    assert states.index(TrialState.FAILED) == number
    assert TrialState.RUNNING not in states
    rest = run(study)
    assert rest[0] == names[-1]
    undisturbed = run(SearchStudy(tmp_path / "whole", plan(), Subject(CHECKPOINT), seed=3))
    assert names[:-1] + rest == undisturbed


def test_a_run_killed_twice_in_a_row_still_ends_as_one_that_was_not(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    begun = killed_in_trial(folder, 3)
    begun = begun[:-1] + killed_in_trial(folder, 6)
    study = SearchStudy(folder, plan(), Subject(CHECKPOINT), seed=3)
    rest = run(study)
    undisturbed = SearchStudy(tmp_path / "whole", plan(), Subject(CHECKPOINT), seed=3)
    assert begun[:-1] + rest == run(undisturbed)
    assert study.record().front == undisturbed.record().front
    assert study.record().hypervolume[-1] == undisturbed.record().hypervolume[-1]
