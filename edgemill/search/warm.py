"""Warm start: what earlier studies of the same checkpoint found best is tried first; their outcomes do not count."""

from __future__ import annotations

import optuna

from edgemill.search.front import hypervolume
from edgemill.search.frozen import KNOBS, trial_record
from edgemill.search.knobs import Knobs
from edgemill.search.plan import Plan
from edgemill.search.record import TrialRecord, best_of, point_of
from edgemill.search.space import nearest

CHECKPOINT = "checkpoint"
WARM_STARTED = "warm_started"

_MOST = 4


def earlier_best(storage: optuna.storages.BaseStorage, checkpoint: str, own: str, plan: Plan) -> list[Knobs]:
    """The chains of this plan nearest to the best of other studies, those that gain most first.

    Args:
        checkpoint: its digest.
        own: name of the study that begins.

    Returns:
        at most four, none twice.
    """
    found: list[TrialRecord] = []
    for name in sorted(optuna.get_all_study_names(storage)):
        study = optuna.load_study(study_name=name, storage=storage)
        if name != own and study.user_attrs.get(CHECKPOINT) == checkpoint:
            found += [trial_record(trial) for trial in study.get_trials(deepcopy=False) if KNOBS in trial.user_attrs]
    best = best_of([trial for trial in found if all(goal in trial.values for goal in plan.goals)], plan.goals)
    best.sort(key=lambda trial: (-hypervolume([point_of(trial, plan.goals)]), trial.name))
    return list(dict.fromkeys(nearest(plan.candidates, trial.knobs.knobs) for trial in best))[:_MOST]
