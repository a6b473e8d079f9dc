"""From the records of finished steps to what a study is told: ratios to the baseline, distance to the budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemill.errors import RecipeError
from edgemill.recipe import Goal
from edgemill.search.study import Outcome
from edgemill.validate.verdict import Decision, GateFacts, Verdict

_Facts = Mapping[str, Any]


@dataclass(frozen=True)
class TooBig:
    """A chain that does not fit on a device.

    Attributes:
        excess: over the limit, as a share of it.
        reason: by how much, in words.
    """

    excess: float
    reason: str


def outcome_of(
    goals: Sequence[Goal],
    measured: Mapping[str, _Facts],
    screened: Mapping[str, GateFacts],
    tested: int,
    too_big: Mapping[str, TooBig] | None = None,
) -> Outcome:
    """What a chain has reached, over all targets that it was made for.

    Args:
        goals: what is made small.
        measured: facts of the benchmark by target; beside them `baseline_energy_mj` where energy is a goal, and
            `macs` and `baseline_macs` where those are. Empty where the chain loses more than is allowed on validation
            data for certain, and so was not measured.
        screened: the comparison with the checkpoint on validation data, by target.
        tested: samples of the test split, on which the gate will judge.
        too_big: by target, where the chain does not fit on the device.

    Raises:
        RecipeError: a target has no figure for a goal, or none can run the chain here.
    """
    too_big = too_big or {}
    if not screened and not too_big:
        raise RecipeError("No target that answers here runs the chain's number format.", where="search, targets")
    ratios = {goal: [_ratio(goal, name, facts) for name, facts in measured.items()] for goal in goals}
    known = {goal: [ratio for ratio in found if ratio is not None] for goal, found in ratios.items()}
    scores = [facts.accuracy for facts in screened.values() if facts.accuracy is not None]
    return Outcome(
        values={goal: _middle(found) for goal, found in known.items() if found},
        violation=max([violation(facts, tested) for facts in screened.values()] + [b.excess for b in too_big.values()]),
        score=min(scores, default=None),
        facts={"targets": sorted(measured)},
        cause="; ".join(f"{name}: {item.reason}" for name, item in too_big.items()) or None,
    )


def violation(screened: GateFacts, tested: int) -> float:
    """How far over the margin the bound of the drop would be on the test split, if the drop there were the same.

    A bound on validation data is wider than on a larger test split. The distance between estimate and bound
    is taken to shrink with the square root of the samples, as that of a mean does.

    Returns:
        0 or less where the gate may be expected to pass; positive where a check failed on validation data.
    """
    main = screened.main
    if main.estimate is None or main.upper is None:
        return math.inf
    expected = main.estimate + (main.upper - main.estimate) * math.sqrt(main.n / max(tested, 1)) - main.margin
    failed = [abs(_excess(check)) for check in screened.checks[1:] if check.verdict is Decision.FAIL]
    return max([expected, *failed])


def _excess(check: Verdict) -> float:
    return 1.0 if check.estimate is None else check.estimate - check.margin


def _ratio(goal: Goal, target: str, facts: _Facts) -> float | None:
    """None where the target's times cannot be taken here; another target's count then."""
    if goal is Goal.MACS:
        return float(facts["macs"] / facts["baseline_macs"])
    if goal is Goal.COMPRESSED_BYTES:
        return float(facts["compressed_bytes"] / facts["baseline_compressed_bytes"])
    if "ratio" not in facts or str(facts.get("source", "")).startswith("unlike:"):
        return None
    if goal is Goal.LATENCY:
        return float(facts["ratio"])
    return require_energy(facts, target) / float(facts["baseline_energy_mj"])


def require_energy(facts: _Facts, target: str) -> float:
    """Millijoules of one inference.

    Args:
        facts: of a benchmark.

    Raises:
        RecipeError: they are neither measured nor estimated.
    """
    figure = energy_mj(facts)
    if figure is None:
        raise RecipeError(
            "The energy of an inference is neither measured nor estimated on this target.",
            where=f"search.goals, target {target}",
            expected="a power sensor, or a target with a power envelope",
            got=str(facts.get("energy_missing", "no figure")),
            remedy="search for latency and compressed_bytes",
        )
    return figure


def energy_mj(facts: _Facts) -> float | None:
    """Millijoules of one inference: measured, else estimated from the target's power envelope, else None."""
    figure = facts.get("energy_mj")
    figure = facts.get("energy_estimate_mj") if figure is None else figure
    return None if figure is None else float(figure)


def _middle(ratios: Sequence[float]) -> float:
    """Geometric mean: a ratio halved on one target is worth a ratio halved on another."""
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios))
