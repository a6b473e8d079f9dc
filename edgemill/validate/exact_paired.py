"""Exact bound of the drop of paired proportions: it holds for every n and every share of discordant pairs.

Among n pairs let X be lost, Y won and S = X + Y discordant, with a true drop d = P(lost) - P(won) and a
true discordance s = P(lost) + P(won). Then S ~ Binomial(n, s) and X | S ~ Binomial(S, (s + d) / (2 s)).
d is asked for and s is a nuisance.

Test of "the drop is at least d" against "it is smaller". Outcomes are ordered by Tango's upper bound U:
the smaller, the better for the variant. With R = {outcomes with U <= the observed U}, the p-value is

    p(d) = gamma + max over s in C of P(R; d, s),    C = Clopper-Pearson interval of s at 1 - gamma.

The order by the score statistic is that of Hsueh, Liu and Chen (2001), Biometrics 57:478-483, and Sidik
(2003), Statistics in Medicine 22:265-278; the maximum over an interval of the nuisance, paid for by
gamma, is that of Berger and Boos (1994), JASA 89:1012-1016. Ordering by an approximate bound that does
not depend on d, and inverting, is Buehler's limit (1957), for paired proportions Lloyd and Moldovan
(2007), Statistics in Medicine 26:3369-3384. With it p(d) falls as d grows, so that the bound and the
decision never disagree: the upper bound is the d at which p(d) = 1 - confidence.

Why it holds for every drop of at least d, not only for d itself: for a fixed S, U grows with X, and X
grows stochastically with d. So P(R; d, s) falls in d at every s, and C does not depend on d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from edgemill.validate.score_interval import check_counts, score_excess, tango_upper

EXACT = "paired proportions, exact unconditional, score order (Lloyd & Moldovan 2007; Berger & Boos 1994)"

GAMMA_SHARE = 1 / 500
"""gamma as a share of 1 - confidence."""

_TIE = 1e-9
_TINY = 1e-300
_PRECISION = 1e-6
_CELLS = 60_000
_MIN_GRID, _MAX_GRID = 33, 41
_FINER = 7


@dataclass(frozen=True)
class _Region:
    """R of one outcome, and the range of the nuisance that is plausible with it.

    Attributes:
        n: pairs.
        upper: U.
        first: smallest number of discordant pairs in the arrays.
        most: (K,), largest number of lost pairs in R for `first + k` discordant ones; -1 for none.
        log_ways: (K,), log of the binomial coefficients (n over `first + k`).
        log_limit: (K,), log of the binomial coefficients (`first + k` over `most[k]`); -inf where none.
        low: lower end of C.
        high: upper end of C.
        gamma: what C costs.
    """

    n: int
    upper: float
    first: int
    most: NDArray[np.float64]
    log_ways: NDArray[np.float64]
    log_limit: NDArray[np.float64]
    low: float
    high: float
    gamma: float


def p_value(lost: int, won: int, n: int, drop: float, confidence: float) -> float:
    """Exact p-value of the hypothesis that the true drop is at least `drop`.

    Args:
        lost: samples right in the baseline and wrong in the variant.
        won: samples wrong in the baseline and right in the variant.
        n: all samples, > 0.
        drop: -1..1.
        confidence: one-sided, of the test that is made with the p-value; it sets the order of the
            outcomes and gamma.

    Returns:
        0..1; the test rejects where it is at most 1 - confidence.

    Raises:
        InvariantError: the counts are impossible.
    """
    region = _region(lost, won, n, confidence)
    return min(1.0, region.gamma + _largest(region, drop))


def exact_upper(lost: int, won: int, n: int, confidence: float) -> float:
    """Exact one-sided upper confidence bound of the drop, -1..1; see the head of this module.

    Args:
        lost: samples right in the baseline and wrong in the variant.
        won: samples wrong in the baseline and right in the variant.
        n: all samples, > 0.
        confidence: one-sided, 0.5..1.

    Raises:
        InvariantError: the counts are impossible.
    """
    return _bound(lost, won, n, confidence)


def exact_lower(lost: int, won: int, n: int, confidence: float) -> float:
    """Exact one-sided lower confidence bound of the drop; the mirror image of `exact_upper`."""
    return -_bound(won, lost, n, confidence)


@lru_cache(maxsize=4096)
def _bound(lost: int, won: int, n: int, confidence: float) -> float:
    region = _region(lost, won, n, confidence)
    target = float(special.ndtri(1 - confidence - region.gamma))

    def above(drop: float) -> float:
        # On the normal scale the probability is almost straight in the drop.
        return float(np.clip(special.ndtri(_largest(region, drop)), -30, 30)) - target

    observed = (lost - won) / n
    low, high = observed, region.upper
    if above(high) > 0:
        low, step = high, max(0.05 * (high - observed), 1e-3 / n)
        while above(high := min(1.0, high + step)) > 0:
            if high == 1.0:
                return 1.0
            low, step = high, 2 * step
    elif above(low) <= 0:
        return observed
    precision = _PRECISION * (high - observed)
    # Rounded up, so that the bound never says more than the p-value.
    return min(high, float(optimize.brentq(above, low, high, xtol=precision)) + precision)


def _region(lost: int, won: int, n: int, confidence: float) -> _Region:
    check_counts(lost, won, n)
    gamma = (1 - confidence) * GAMMA_SHARE
    discordant = lost + won
    low = float(special.betaincinv(discordant, n - discordant + 1, gamma / 2)) if discordant > 0 else 0.0
    high = float(special.betaincinv(discordant + 1, n - discordant, 1 - gamma / 2)) if discordant < n else 1.0
    first, last = _window(n, low)[0], _window(n, high)[1]
    pairs = np.arange(first, last + 1, dtype=np.float64)
    upper = tango_upper(lost, won, n, confidence)
    most = _most_lost(pairs, n, upper, float(special.ndtri(confidence)))
    log_limit = np.where(most < 0, -np.inf, _log_choose(pairs, np.maximum(most, 0)))
    return _Region(n, upper, first, most, _log_choose(n, pairs), log_limit, low, high, gamma)


def _log_choose(of: NDArray[np.float64] | int, taken: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = special.gammaln(of + 1) - special.gammaln(taken + 1) - special.gammaln(of - taken + 1)
    return result


def _most_lost(pairs: NDArray[np.float64], n: int, upper: float, z: float) -> NDArray[np.float64]:
    """(K,), for every number of discordant pairs the largest number of lost ones with U <= `upper`; -1 for none."""
    tie = _TIE * math.sqrt(n)
    low, high = np.full(pairs.shape, -1.0), pairs + 1
    while True:
        middle = np.floor((low + high) / 2)
        open_ = high - low > 1
        if not open_.any():
            break
        inside = score_excess(upper, middle, pairs - middle, n, z) <= tie
        low, high = np.where(open_ & inside, middle, low), np.where(open_ & ~inside, middle, high)
    # U falls with a won sample and grows with a lost one, so that one more pair adds one lost one or none.
    most: NDArray[np.float64] = low[0] + np.concatenate([[0.0], np.cumsum(np.clip(np.diff(low), 0, 1))])
    return most


def _window(n: int, rate: float) -> tuple[int, int]:
    """Range outside of which Binomial(n, rate) has less than 1e-11 of its mass, by Bernstein's inequality."""
    half = 7.5 * math.sqrt(n * rate * (1 - rate)) + 20
    return max(0, math.floor(n * rate - half)), min(n, math.ceil(n * rate + half))


def _largest(region: _Region, drop: float) -> float:
    """Largest probability of the region over the nuisance."""
    low, high = max(region.low, drop), region.high
    if low > high:
        return 0.0
    # In this angle a binomial share has the standard deviation 1 / (2 sqrt(n)) everywhere.
    ends = math.asin(math.sqrt(low)), math.asin(math.sqrt(high))
    points = min(_MAX_GRID, max(_MIN_GRID, _CELLS // len(region.most)))
    step = (ends[1] - ends[0]) / (points - 1)
    angles = np.linspace(*ends, points)
    if low < -drop < high:
        # There the profile has a kink, often its peak.
        angles = np.append(angles, math.asin(math.sqrt(-drop)))
    values = _probability(region, drop, np.sin(angles) ** 2)
    best = float(values.max())
    for _ in range(2):
        at = angles[int(values.argmax())]
        angles = np.linspace(max(ends[0], at - step), min(ends[1], at + step), _FINER)
        step = angles[1] - angles[0]
        values = _probability(region, drop, np.sin(angles) ** 2)
        best = max(best, float(values.max()))
    return best


def _probability(region: _Region, drop: float, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G,), probability of the region at a drop and discordances `rates` (G,); at a rate below -drop all are won."""
    pairs = region.first + np.arange(len(region.most), dtype=np.float64)
    rate = rates[:, None]
    weights = np.exp(region.log_ways + pairs * _log(rate) + (region.n - pairs) * _log(1 - rate))
    won = np.clip((rate - drop) / np.maximum(2 * rate, _TINY), 0, 1)
    # Of S + 1 pairs at most x are lost: as of S, less those where x were and the next one is, too.
    lost = np.maximum(region.most, 0)
    limit = np.exp(region.log_limit + lost * _log(1 - won) + (pairs - lost) * _log(won))
    at_most = np.empty_like(weights)
    at_most[:, :1] = special.bdtr(region.most[0], int(pairs[0]), 1 - won) if region.most[0] >= 0 else 0.0
    at_most[:, 1:] = np.diff(region.most) * limit[:, 1:] - (1 - won) * limit[:, :-1]
    np.cumsum(at_most, axis=1, out=at_most)
    total: NDArray[np.float64] = np.clip((weights * at_most).sum(axis=1), 0, 1)
    return total


def _log(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm, finite at 0, so that 0 times it is 0."""
    result: NDArray[np.float64] = np.log(np.maximum(share, _TINY))
    return result
