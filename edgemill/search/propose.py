"""Which chain to try next, from what was tried so far."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import optuna
from numpy.typing import NDArray

from edgemill.errors import InvariantError
from edgemill.search.knobs import NAMES, UNORDERED, Knobs
from edgemill.search.space import Choices
from edgemill.search.surrogate import most_promising

optuna.logging.set_verbosity(optuna.logging.WARNING)

_TRIES = 24
_STARTUP = 6


class Sampler(StrEnum):
    """How a chain is proposed."""

    MODEL = "model"
    """Gaussian processes and hypervolume, see `edgemill.search.surrogate`."""
    TPE = "tpe"
    """Multi-objective tree-structured Parzen estimator with constraints (Ozaki et al. 2022; Watanabe 2023)."""
    RANDOM = "random"


@dataclass(frozen=True)
class Tried:
    """A chain of the history.

    Attributes:
        values: goals on the scale on which they are compared; None while it runs or where it failed.
        violation: above 0 is infeasible; None with values None.
        running: whether its result is still to come.
    """

    knobs: Knobs
    values: tuple[float, ...] | None = None
    violation: float | None = None
    running: bool = False


def propose(
    choices: Choices, untried: Sequence[Knobs], tried: Sequence[Tried], goals: int, sampler: Sampler, seed: int
) -> Knobs:
    """The next chain: the sampler's, or, where it names only what was tried or is not valid, the nearest untried one.

    Equal arguments give the equal answer.

    Args:
        untried: valid chains that are left; not empty.
        tried: the history, oldest first.
        goals: how many.
        seed: of the sampler; another for every trial.

    Raises:
        InvariantError: nothing is left.
    """
    if not untried:
        raise InvariantError("Every chain of the search was tried, and another one was asked for.")
    places = {choices.index(knobs): knobs for knobs in untried}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: distribution(name, choices) for name in choices.open
    }
    if not distributions:
        return untried[0]
    if sampler is Sampler.MODEL and any(item.values is not None for item in tried):
        return _modelled(choices, untried, tried)
    study = _study(choices, tried, goals, sampler, seed, distributions)
    first: tuple[int, ...] | None = None
    for _ in range(_TRIES):
        trial = study.ask(distributions)
        place = tuple(int(trial.params.get(name, 0)) for name in NAMES)
        if place in places:
            return places[place]
        first = first or place
    assert first is not None, "at least one proposal was made"
    return places[min(places, key=lambda place: _steps(place, first, choices))]


def _modelled(choices: Choices, untried: Sequence[Knobs], tried: Sequence[Tried]) -> Knobs:
    spans = np.array([max(1, len(getattr(choices, name)) - 1) for name in NAMES], np.float64)

    def places(chains: Sequence[Knobs]) -> NDArray[np.float64]:
        return np.array([choices.index(knobs) for knobs in chains], np.float64) / spans

    told = [(item.knobs, item.values, item.violation) for item in tried if item.values is not None]
    goals = np.array([values for _, values, _ in told], np.float64)
    violations = np.array([violation for _, _, violation in told], np.float64)
    seen = [values for _, values, violation in told if violation is not None and violation <= 0]
    ordered = [name not in UNORDERED for name in NAMES]
    known = places([knobs for knobs, _, _ in told])
    return untried[most_promising(known, ordered, goals, violations, places(untried), seen)]


def distribution(name: str, choices: Choices) -> optuna.distributions.BaseDistribution:
    """Places of a knob's choices: ordered but for number formats."""
    count = len(getattr(choices, name))
    if name in UNORDERED:
        return optuna.distributions.CategoricalDistribution(tuple(range(count)))
    return optuna.distributions.IntDistribution(0, count - 1)


def _study(
    choices: Choices,
    tried: Sequence[Tried],
    goals: int,
    sampler: Sampler,
    seed: int,
    distributions: dict[str, optuna.distributions.BaseDistribution],
) -> optuna.Study:
    """The history in memory, so that proposals that are not taken leave no trace in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["minimize"] * goals, sampler=_sampler(sampler, seed))
    for item in tried:
        params = dict(zip(NAMES, choices.index(item.knobs), strict=True))
        told = item.values is not None and item.violation is not None
        if not told and not item.running:
            continue
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if told else optuna.trial.TrialState.RUNNING,
                params={name: params[name] for name in choices.open},
                distributions=distributions,
                values=item.values,
                constraints={"gate": item.violation} if item.violation is not None else None,
            )
        )
    return study


def _sampler(sampler: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    if sampler is Sampler.TPE:
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=_STARTUP, multivariate=True)
    return optuna.samplers.RandomSampler(seed=seed)


def _steps(place: tuple[int, ...], other: tuple[int, ...], choices: Choices) -> tuple[float, tuple[int, ...]]:
    spans = [max(1, len(getattr(choices, name)) - 1) for name in NAMES]
    return sum(abs(a - b) / span for a, b, span in zip(place, other, spans, strict=True)), place
