import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemill.recipe.quantizing import Scheme
from edgemill.search.front import hypervolume
from edgemill.search.knobs import Knobs
from edgemill.search.propose import Sampler, Tried, propose
from edgemill.search.space import Choices
from edgemill.search.surrogate import most_promising

CHOICES = Choices(
    width=(0.2, 0.3, 0.4, 0.5, 0.7),
    keep=(1.0,),
    sparsity=(0.0, 0.5, 0.7, 0.8),
    clusters=(0, 8, 16, 32),
    scheme=(Scheme.INT8_STATIC, Scheme.FP16),
    fallback=((),),
)
CHAINS = [
    Knobs(scheme, width, 1.0, sparsity, clusters)
    for width, sparsity, clusters, scheme in itertools.product(
        CHOICES.width, CHOICES.sparsity, CHOICES.clusters, CHOICES.scheme
    )
]


def found(knobs: Knobs, budget: float) -> Tried:
    """Decades of time and bytes, and the distance to the budget."""
    half = knobs.scheme is Scheme.FP16
    shared = {0: 0.0, 8: 0.4, 16: 0.3, 32: 0.2}[knobs.clusters]
    time = 1.5 * np.log10(knobs.width) - (0 if half else 0.4)
    size = 2 * np.log10(knobs.width) - (0.3 if half else 0.6) - 0.6 * knobs.sparsity - shared
    drop = 0.01 * (1 - knobs.width) ** 2 + 0.008 * knobs.sparsity**2 + 0.01 * shared
    return Tried(knobs, (float(time), float(size)), drop - budget)


def searched(trials: int, budget: float, sampler: Sampler) -> list[Tried]:
    tried = [found(CHAINS[0], budget)]
    while len(tried) < trials:
        done = {item.knobs for item in tried}
        untried = [knobs for knobs in CHAINS if knobs not in done]
        tried.append(found(propose(CHOICES, untried, tried, 2, sampler, seed=len(tried)), budget))
    return tried


def reached(tried: list[Tried]) -> float:
    return hypervolume([[10**value for value in item.values] for item in tried if item.values and item.violation <= 0])


@pytest.mark.parametrize("budget", [0.007, 0.009, 0.012])
def test_a_tenth_of_the_space_is_enough_where_knobs_multiply(budget: float) -> None:
    best = reached([found(knobs, budget) for knobs in CHAINS])
    assert reached(searched(len(CHAINS) // 10, budget, Sampler.MODEL)) >= 0.97 * best


def test_finds_more_than_at_random() -> None:
    model, random = (reached(searched(12, 0.008, sampler)) for sampler in (Sampler.MODEL, Sampler.RANDOM))
    assert model > random


def test_nothing_feasible_yet_leads_to_the_budget() -> None:
    small = [knobs for knobs in CHAINS if knobs.width <= 0.3 and knobs.sparsity >= 0.7 and knobs.clusters == 8]
    tried = [found(knobs, 0.007) for knobs in small]
    assert all(item.violation is not None and item.violation > 0 for item in tried)
    for _ in range(4):
        untried = [knobs for knobs in CHAINS if knobs not in {item.knobs for item in tried}]
        tried.append(found(propose(CHOICES, untried, tried, 2, Sampler.MODEL, seed=0), 0.007))
    assert reached(tried) > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.randoms(use_true_random=False))
def test_whatever_was_seen_gives_a_chain(tried: int, left: int, goals: int, random) -> None:
    places = np.array([[random.choice((0.0, 0.5, 1.0)) for _ in range(3)] for _ in range(tried)])
    wanted = np.array([[random.choice((0.0, 0.5, 1.0)) for _ in range(3)] for _ in range(left)])
    values = np.array([[random.choice((-1.0, -0.1, 0.0, 0.3)) for _ in range(goals)] for _ in range(tried)])
    violations = np.array([random.choice((-0.01, 0.0, 0.5)) for _ in range(tried)])
    seen = [tuple(row) for row, violation in zip(values, violations, strict=True) if violation <= 0]
    order = (True, True, False)
    first = most_promising(places, order, values, violations, wanted, seen)
    assert 0 <= first < left
    assert first == most_promising(places, order, values, violations, wanted, seen)
