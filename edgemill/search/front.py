"""Pareto front and hypervolume of what a search found. Every goal is a ratio to the fp32 baseline; less is better.

Ratios are compared on a logarithmic scale: from 0.2 to 0.1 is as much as from 0.4 to 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(first: Point, second: Point) -> bool:
    """Whether the first is as good in every goal and better in one."""
    return all(a <= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)


def pareto(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other dominates, ascending; of equal points the first."""
    front = []
    for index, point in enumerate(points):
        beaten = any(
            dominates(other, point) or (place < index and tuple(other) == tuple(point))
            for place, other in enumerate(points)
        )
        if not beaten:
            front.append(index)
    return front


def gains(ratios: Point) -> tuple[float, ...]:
    """Decades by which each goal is below the baseline: 1 for a tenth, 0 for the baseline, negative for more.

    Args:
        ratios: above 0, dimensionless.
    """
    return tuple(-math.log10(ratio) for ratio in ratios)


def hypervolume(points: Sequence[Point]) -> float:
    """How much of the space below the baseline a set of ratios dominates, in decades to the number of goals.

    The reference point is the fp32 baseline, ratio 1 in every goal. A point that is not below it in every goal
    adds nothing. Exact; by slicing along the last goal (While et al. 2006, "A faster algorithm for calculating
    hypervolume", section II; Zitzler 2001), which is fast for up to three goals and some hundred points.
    """
    return volume([gain for gain in map(gains, points) if all(value > 0 for value in gain)])


def history(points: Sequence[Point | None]) -> tuple[float, ...]:
    """Hypervolume after each trial.

    Args:
        points: by trial; None for one that is infeasible, failed or was stopped.
    """
    found: list[Point] = []
    volumes = []
    last = 0.0
    for point in points:
        if point is not None:
            found.append(point)
            last = hypervolume(found)
        volumes.append(last)
    return tuple(volumes)


def volume(corners: list[tuple[float, ...]]) -> float:
    """Volume of the union of the boxes from the origin to each corner, all above 0."""
    if not corners:
        return 0.0
    if len(corners[0]) == 1:
        return max(corner[0] for corner in corners)
    total, upper = 0.0, sorted({corner[-1] for corner in corners}, reverse=True)
    for level, below in zip(upper, [*upper[1:], 0.0], strict=True):
        total += (level - below) * volume([corner[:-1] for corner in corners if corner[-1] >= level])
    return total
