"""What the gates of `gate_calibration` let pass, as tables, and how often that is by the trinomial distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from edgemill.validate.exact_paired import p_value
from edgemill.validate.score_interval import score_excess

Table = NDArray[np.float64]
"""(n + 1,), for every number of discordant pairs the most lost ones that still pass; -1 none, NaN not asked."""
Rule = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""(lost, won) to PASS."""


@dataclass(frozen=True)
class Truth:
    """A trinomial distribution of outcomes."""

    drop: float
    discordance: float

    @property
    def lost(self) -> float:
        """Probability of a lost sample."""
        return (self.discordance + self.drop) / 2

    @property
    def won(self) -> float:
        """Probability of a won sample."""
        return (self.discordance - self.drop) / 2

    @property
    def swapped(self) -> Truth:
        """With lost and won exchanged."""
        return Truth(-self.drop, self.discordance)


def rules(n: int, margin: float, confidence: float) -> Mapping[str, Rule]:
    """The other gates. Accuracies are counts: a tie is a tie."""
    z = float(special.ndtri(confidence))
    limit = margin * n
    tie = 1e-9 * n
    return {
        "score": lambda lost, won: score_excess(margin, lost, won, n, z) < 0,
        "point": lambda lost, won: lost - won < limit - tie,
        "nncf": lambda lost, won: lost - won <= limit + tie,
        "olive": lambda lost, won: won - lost >= -limit - tie,
        "olive_threshold": lambda lost, _won: np.ones(lost.shape, bool),
    }


def rule_table(n: int, rule: Rule) -> Table:
    """By bisection, for every number of discordant pairs at once."""
    pairs = np.arange(n + 1, dtype=np.float64)
    low, high = np.full(n + 1, -1.0), pairs + 1
    while (high - low > 1).any():
        middle = np.where(high - low > 1, np.floor((low + high) / 2), low)
        passed = (middle < 0) | rule(middle, pairs - middle)
        low, high = np.where(passed, middle, low), np.where(passed, high, middle)
    return low


def gate_table(n: int, drop: float, confidence: float, wanted: NDArray[np.bool_]) -> Table:
    """Outcomes for which edgemill's test rejects "the drop is at least `drop`": with the margin, what PASSes.

    With minus the margin, and the won samples in the place of the lost ones, it is what FAILs.

    Args:
        n: samples.
        drop: of the hypothesis.
        confidence: of the test.
        wanted: (n + 1,), numbers of discordant pairs to ask for.
    """
    table = np.full(n + 1, np.nan)
    most = -1
    for pairs in np.flatnonzero(wanted).tolist():

        def passes(lost: int, pairs: int = pairs) -> bool:
            return lost < 0 or p_value(lost, pairs - lost, n, drop, confidence) <= 1 - confidence

        # The last limit is near the next one.
        step = 1
        if passes(most := min(most, pairs)):
            low, high = most, min(most + step, pairs + 1)
            while high <= pairs and passes(high):
                low, step = high, 2 * step
                high = min(high + step, pairs + 1)
        else:
            low, high = most - step, most
            while not passes(low):
                high, step = low, 2 * step
                low = max(-1, low - step)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(middle) else (low, middle)
        table[pairs] = most = low
    return table


def tables(n: int, margin: float, confidence: float, wanted: NDArray[np.bool_]) -> dict[str, Table]:
    """The table of every gate."""
    found = {"gate": gate_table(n, margin, confidence, wanted)}
    return found | {name: rule_table(n, rule) for name, rule in rules(n, margin, confidence).items()}


def pass_rate(table: Table, n: int, truth: Truth) -> float:
    """Exact probability of PASS: the sum over the trinomial distribution."""
    first, last = window(n, truth.discordance)
    pairs = np.arange(first, last + 1)
    given = stats.binom.cdf(table[first : last + 1], pairs, truth.lost / truth.discordance)
    return float(np.sum(stats.binom.pmf(pairs, n, truth.discordance) * given))


def largest_rate(table: Table, n: int, drop: float, least: float) -> tuple[float, float]:
    """Largest probability of PASS over discordances from `least` to 1, and where it is.

    A discordance below the drop allows that discordance only as drop: all are lost (or won).
    """
    # Even steps of a binomial share's standard deviation, 8 to one of them.
    first, last = math.asin(math.sqrt(least)), math.pi / 2
    shares = np.sin(np.linspace(first, last, int(16 * math.sqrt(n) * (last - first)) + 2)) ** 2
    shares = np.clip(np.append(shares, max(least, abs(drop))), least, 1.0)
    rates = [pass_rate(table, n, Truth(float(np.clip(drop, -share, share)), float(share))) for share in shares]
    best = int(np.argmax(rates))
    return rates[best], float(shares[best])


def window(n: int, share: float) -> tuple[int, int]:
    """Range of the number of discordant pairs outside of which practically nothing is."""
    half = 8 * (n * share * (1 - share)) ** 0.5 + 20
    return max(0, int(n * share - half)), min(n, int(n * share + half) + 1)
