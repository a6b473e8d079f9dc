"""How much each knob matters for each goal and for the accuracy drop.

Functional ANOVA on a random forest (Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter
Importance", section 3): the share of a quantity's variance over the space that each knob explains alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna

from edgemill.search.knobs import NAMES, Knobs
from edgemill.search.plan import Plan
from edgemill.search.propose import distribution
from edgemill.search.record import Importance, TrialRecord, TrialState

ACCURACY_DROP = "accuracy_drop"
_FEWEST_TRIALS = 6
_PER_KNOB = 2
_METHOD = "functional ANOVA on a random forest (Hutter et al. 2014)"
_CONSTANT = 1e-9
_SEED = 0


def importances(plan: Plan, trials: Sequence[TrialRecord]) -> tuple[Importance, ...]:
    """Importance of each knob for every goal (on its logarithm), and for the accuracy drop.

    Args:
        plan: names the knobs that have more than one choice.
        trials: of the study; complete and infeasible ones count.

    Returns:
        one value for each goal, and one for the drop; without shares where there are too few trials, or where the
        quantity is the same in all.
    """
    done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.INFEASIBLE)]
    known = [(trial, knobs) for trial in done if (knobs := trial.knobs.knobs) in plan.candidates]
    found = []
    for goal in plan.goals:
        measured = [(knobs, float(np.log(trial.values[goal]))) for trial, knobs in known if goal in trial.values]
        found.append(_one(goal.value, plan, measured))
    drops = [(knobs, trial.violation) for trial, knobs in known if trial.violation is not None]
    return (*found, _one(ACCURACY_DROP, plan, drops))


def _one(of: str, plan: Plan, pairs: Sequence[tuple[Knobs, float]]) -> Importance:
    names = plan.choices.open
    needed = max(_FEWEST_TRIALS, _PER_KNOB * len(names) + 1)
    if not names:
        return Importance(of=of, trials=len(pairs), reason="every knob has one choice only")
    if len(pairs) < needed:
        return Importance(
            of=of, trials=len(pairs), reason=f"too few trials: {len(pairs)}, at least {needed} are needed"
        )
    if np.ptp([value for _, value in pairs]) < _CONSTANT:
        return Importance(of=of, trials=len(pairs), reason="the same in all trials")
    distributions = {name: distribution(name, plan.choices) for name in names}
    study = optuna.create_study(direction="minimize")
    for knobs, value in pairs:
        place = dict(zip(NAMES, plan.choices.index(knobs), strict=True))
        study.add_trial(
            optuna.trial.create_trial(
                params={name: place[name] for name in names}, distributions=distributions, value=value
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=_SEED)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return Importance(
        of=of, shares={name: float(share) for name, share in shares.items()}, trials=len(pairs), method=_METHOD
    )
