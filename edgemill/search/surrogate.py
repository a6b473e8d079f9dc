"""A model of the goals and of the distance to the budget, for spaces of some hundred chains and some ten trials.

The next chain is the one whose optimistic goals add most hypervolume (Ponweiser et al. 2008, "Multiobjective
Optimization on a Limited Budget of Evaluations Using Model-Assisted S-Metric Selection", section 3), times the
probability that it holds the budget (Schonlau et al. 1998, "Global versus Local Search in Constrained Optimization
of Computer Models", section 4). The models are Gaussian processes (Rasmussen and Williams 2006, algorithm 2.1) with
an additive kernel (Duvenaud et al. 2011, "Additive Gaussian Processes"): on a logarithmic scale each knob
multiplies latency and bytes by a factor of its own, nearly whatever the others are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgemill.search.front import pareto, volume

_OPTIMISM = 1.0
"""Standard deviations below its mean at which a goal is taken."""
_LENGTH = 0.5
"""Share of a knob's range over which its effect changes."""
_LINEAR, _ADDITIVE, _JOINT = 1.0, 0.5, 0.1
"""Prior variance of a knob's slope, of its own curve, and of what all knobs do together."""
_GOAL_NOISE, _BUDGET_NOISE = 1e-3, 1e-1
"""Share of the variance that another measurement, or another training, would not repeat."""
_EDGE = 3.0
"""Distances to the budget below so many times the median count in full, larger ones by their logarithm."""

Array = NDArray[np.float64]


def most_promising(
    places: Array,
    ordered: Sequence[bool],
    goals: Array,
    violations: Array,
    open_places: Array,
    seen: Sequence[Sequence[float]],
) -> int:
    """Index of the chain to try next.

    Args:
        places: of the tried chains, float64 (tried, knobs), each knob from 0 to 1.
        ordered: by knob, whether neighbouring choices are alike.
        goals: of the tried chains, decades relative to the baseline, float64 (tried, goals); less is better.
        violations: of the tried chains, float64 (tried,); above 0 is over the budget.
        open_places: of the chains to choose from, float64 (open, knobs).
        seen: goals of the tried chains that hold the budget.

    Returns:
        index into `open_places`; of equals the first.
    """
    optimistic = np.empty((len(open_places), goals.shape[1]))
    for goal in range(goals.shape[1]):
        mean, deviation = _predict(places, goals[:, goal], open_places, ordered, _GOAL_NOISE)
        optimistic[:, goal] = mean - _OPTIMISM * deviation
    # a collapsed model is a hundred times further off than what matters at the edge of the budget
    edge = _EDGE * float(np.median(np.abs(violations))) or 1.0
    mean, deviation = _predict(places, np.arcsinh(violations / edge), open_places, ordered, _BUDGET_NOISE)
    holds = np.array([_normal_cdf(-m / d) for m, d in zip(mean, deviation, strict=True)])
    front = [tuple(seen[index]) for index in pareto(seen)]
    base = _gained(front)
    gains = np.array([_gained([*front, tuple(point)]) - base for point in optimistic])
    worth = gains * holds
    # where nothing is expected to be gained, the safest chain teaches most about the budget
    return int(np.argmax(worth)) if worth.max() > 0 else int(np.argmax(holds))


def _gained(points: Sequence[Sequence[float]]) -> float:
    return volume([tuple(-value for value in point) for point in points if all(value < 0 for value in point)])


def _normal_cdf(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def _predict(places: Array, values: Array, wanted: Array, ordered: Sequence[bool], noise: float) -> tuple[Array, Array]:
    """Mean and standard deviation at the wanted places."""
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    inner = _kernel(places, places, ordered) + noise * np.eye(len(places))
    across = _kernel(wanted, places, ordered)
    factor = np.linalg.cholesky(inner)
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, (values - centre) / scale))
    explained = np.linalg.solve(factor, across.T)
    prior = np.diagonal(_kernel(wanted, wanted, ordered))
    variance = np.maximum(prior - (explained**2).sum(axis=0), noise)
    return centre + scale * (across @ weights), scale * np.sqrt(variance)


def _kernel(first: Array, second: Array, ordered: Sequence[bool]) -> Array:
    total = np.zeros((len(first), len(second)))
    joint = np.ones_like(total)
    for knob, has_order in enumerate(ordered):
        a, b = first[:, knob, None], second[None, :, knob]
        if has_order:
            alike = np.exp(-((a - b) ** 2) / (2 * _LENGTH**2))
            total += _LINEAR * (a - 0.5) * (b - 0.5) + _ADDITIVE * alike
        else:
            alike = (a == b).astype(np.float64)
            total += (_LINEAR + _ADDITIVE) / 2 * alike
        joint *= alike
    return total + _JOINT * joint
