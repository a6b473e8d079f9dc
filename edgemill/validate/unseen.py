"""Bounds that also count the errors which the samples happen not to hold."""

from __future__ import annotations

import math

UNSEEN = "widened for unseen errors"


def allow_unseen(
    numbers: tuple[float, float, float], harm: tuple[float, float], confidence: float
) -> tuple[float, float, float]:
    """Widen approximate bounds of a statistic that errors of single samples make up.

    A bootstrap or a normal approximation knows only what it has seen: without any error it says that
    there is none. With e = estimate, u = upper bound, h = what one more error adds to the statistic and
    w = -ln(1 - confidence) / 2, the bound becomes

        e + w h + sqrt((u - e)^2 + (w h)^2).

    Without any error seen that is 2 w h, the exact bound of a Poisson rate (3 h at 95 %: the rule of
    three, Hanley and Lippman-Hand 1983, JAMA 249:1743-1745). For counts with a normal bound it is the
    score interval of Wilson (1927) with z^2 replaced by 2 w, within 1 % of the exact Poisson bound for
    any count at 95 %. With many errors the term vanishes beside the width.

    Args:
        numbers: estimate, lower and upper bound.
        harm: by how much one lost sample raises the statistic, and one won sample lowers it; both >= 0.
        confidence: one-sided, of each bound.
    """
    estimate, lower, upper = numbers
    w = -math.log(1 - confidence) / 2

    def distance(width: float, one: float) -> float:
        return w * one + math.hypot(max(0.0, width), w * one)

    return estimate, estimate - distance(estimate - lower, harm[1]), estimate + distance(upper - estimate, harm[0])
