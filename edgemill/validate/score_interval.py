"""Score interval of the difference of paired proportions (Tango 1998): fast, but only asymptotic.

Drop = share right in the baseline - share right in the variant, on the same samples.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

from edgemill.errors import InvariantError


def tango_upper(lost: float, won: float, n: float, confidence: float) -> float:
    """One-sided upper confidence bound of the drop `(lost - won) / n` of paired proportions.

    The score statistic of Tango (1998), Statistics in Medicine 17:891-908, section 3: for a
    hypothetical drop d,

        z(d) = (lost - won - n d) / sqrt(n (2 q + d (1 - d))),

    where q, the probability of a won sample, is its maximum-likelihood estimate under d:
    q = (sqrt(B^2 - 4 A C) - B) / (2 A), A = 2 n, B = -lost - won + (2 n - lost + won) d,
    C = -won d (1 - d). The bound is the d above the observed one at which z(d) = -z_confidence.
    Without any discordant pair it is z^2 / (n + z^2), not 0.

    Args:
        lost: samples right in the baseline and wrong in the variant (a fraction is accepted).
        won: samples wrong in the baseline and right in the variant.
        n: all samples, > 0.
        confidence: one-sided, 0.5..1.

    Raises:
        InvariantError: the counts are impossible.
    """
    check_counts(lost, won, n)
    z = float(special.ndtri(confidence))
    if lost + won == 0:
        return z * z / (n + z * z)
    observed = (lost - won) / n
    if score_excess(1.0, lost, won, n, z) >= 0:
        return 1.0
    return float(optimize.brentq(score_excess, observed, 1.0, args=(lost, won, n, z), xtol=1e-12))


def tango_lower(lost: float, won: float, n: float, confidence: float) -> float:
    """One-sided lower confidence bound of the drop; the mirror image of `tango_upper`."""
    return -tango_upper(won, lost, n, confidence)


def score_excess(drop: float, lost: ArrayLike, won: ArrayLike, n: float, z: float) -> Any:
    """`lost - won - n drop + z sqrt(variance)`: not above 0 iff `tango_upper` at z is not above `drop`.

    Args:
        drop: hypothetical one, -1..1.
        lost: count, or an array of counts.
        won: count, or an array of the same shape.
        n: all samples.
        z: normal quantile of the confidence.

    Returns:
        float64, of the shape of `lost`.
    """
    x, y = np.asarray(lost, np.float64), np.asarray(won, np.float64)
    b = -x - y + (2 * n - x + y) * drop
    c = -y * drop * (1 - drop)
    q = (np.sqrt(np.maximum(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    excess: NDArray[np.float64] = x - y - n * drop + z * np.sqrt(np.maximum(0.0, n * (2 * q + drop * (1 - drop))))
    return excess


def check_counts(lost: float, won: float, n: float) -> None:
    """Check the counts of a paired comparison.

    Raises:
        InvariantError: they are impossible.
    """
    if not (n > 0 and lost >= 0 and won >= 0 and lost + won <= n * (1 + 1e-12) and math.isfinite(n)):
        raise InvariantError("Counts of a paired comparison are impossible.", got=f"lost {lost}, won {won}, n {n}")
